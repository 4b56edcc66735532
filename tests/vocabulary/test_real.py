"""SmolLM2's tokenizer, of 49152 tokens, joined with what is like it."""

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

from tensorsurgeon.vocabulary import RowOf, Run, Vocabulary, join, tokenizer_files
from tests.vocabulary.makers import FOREST, PROBES, SEA, bpe, lay_down, loaded, vocabulary_of
from tests.vocabulary.test_unions import ends

ROWS = 49152
FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@pytest.fixture(scope="module")
def files(smollm2: Path) -> dict[str, bytes]:
    return {name: (smollm2 / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def real(files: dict[str, bytes]) -> Vocabulary:
    return vocabulary_of(files, ROWS)


@pytest.fixture(scope="module")
def with_more(files: dict[str, bytes]) -> dict[str, bytes]:
    """The tokenizer as a fine-tune has it that added two tokens."""
    tokenizer = loaded(files)
    tokenizer.add_special_tokens(["<|tool|>"])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    return files | {"tokenizer.json": tokenizer.to_str().encode()}


def test_ids_are_those_that_transformers_loads(real: Vocabulary, smollm2: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(smollm2)
    assert real.ids == theirs.get_vocab()
    assert {role: real.roles[role] for role in ("bos_token", "eos_token", "pad_token")} == {
        "bos_token": theirs.bos_token,
        "eos_token": theirs.eos_token,
        "pad_token": theirs.pad_token,
    }


def test_joined_with_itself_it_is_one_run(real: Vocabulary, files: dict[str, bytes]) -> None:
    joined = join({"a": real, "b": real})
    assert joined.maps["a"].keeps("a", ROWS)
    assert joined.maps["b"].keeps("b", ROWS)
    assert tokenizer_files(joined, files) == files


def test_tokens_of_a_fine_tune_are_two_rows_behind(
    real: Vocabulary, files: dict[str, bytes], with_more: dict[str, bytes], tmp_path: Path
) -> None:
    more = vocabulary_of(with_more, ROWS + 2)
    joined = join({"base": real, "tuned": more}, base="base", pad_to_multiple_of=64)
    new = Run(start=ROWS, stop=ROWS + 2, sources=(RowOf("tuned", ROWS),))
    zero = Run(start=ROWS + 2, stop=ROWS + 64, sources=())
    own = Run(start=0, stop=ROWS, sources=(RowOf("base", 0),))
    assert joined.maps["base"].runs == (own, new, zero)
    assert joined.maps["tuned"].runs == (
        Run(start=0, stop=ROWS + 2, sources=(RowOf("tuned", 0),)),
        zero,
    )
    made = tokenizer_files(joined, files)
    theirs = AutoTokenizer.from_pretrained(lay_down(tmp_path / "made", made))
    assert theirs.get_vocab() == joined.vocabulary.ids == loaded(with_more).get_vocab()
    for text in (*PROBES, SEA, FOREST, "a<|tool|> <think>b</think>"):
        assert theirs(text)["input_ids"] == loaded(with_more).encode(text).ids
    chat = [{"role": "user", "content": "Hi"}]
    assert "<|im_start|>user\nHi" in theirs.apply_chat_template(chat, tokenize=False)


def test_union_with_another_tokenizer_only_joins_its_tokens(
    real: Vocabulary, files: dict[str, bytes], tmp_path: Path
) -> None:
    text = "საქართველოს დედაქალაქია თბილისი, და საქართველოში ქართულად ლაპარაკობენ. "
    other = bpe(text * 3, 400)
    joined = join({"real": real, "other": vocabulary_of(other)})
    made = tokenizer_files(joined, files)
    after, before = loaded(made), loaded(files)
    assert after.get_vocab() == joined.vocabulary.ids
    assert AutoTokenizer.from_pretrained(lay_down(tmp_path, made)).get_vocab() == after.get_vocab()
    for content in (*PROBES, SEA, FOREST, text):
        assert {*ends(after, content)} <= {*ends(before, content)}
        assert after.decode(after.encode(content).ids) == content
    assert len(after.encode(text).ids) < len(before.encode(text).ids)
    assert after.encode(SEA).ids == before.encode(SEA).ids


def test_what_is_written_has_the_ids_that_it_is_said_to_have(
    real: Vocabulary, files: dict[str, bytes]
) -> None:
    """The library only warns where a file says another id than it gives."""
    joined = join({"real": real, "other": vocabulary_of(bpe(FOREST, special=["<a>", "<b>"]))})
    made = tokenizer_files(joined, files)
    document = json.loads(made["tokenizer.json"])
    theirs: Tokenizer = loaded(made)
    for token in document["added_tokens"]:
        assert theirs.token_to_id(token["content"]) == token["id"]
    config = json.loads(made["tokenizer_config.json"])
    for number, token in config["added_tokens_decoder"].items():
        assert theirs.token_to_id(token["content"]) == int(number)
