"""The files of a joined vocabulary: the library and transformers load them, ids as they should."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, processors
from transformers import AutoTokenizer

from tensorsurgeon.vocabulary import TokenOf, TokenRule, join, tokenizer_files
from tests.vocabulary.makers import (
    END,
    FOREST,
    KINDS,
    PAD,
    PROBES,
    SEA,
    Make,
    bpe,
    files_of,
    lay_down,
    llama,
    loaded,
    unigram,
    vocabulary_of,
    with_added,
    word_piece,
    written,
)

TOOL = AddedToken("<tool>", lstrip=True, normalized=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens_at_end", [(), ("<a>", "<b>")])
def test_ids_are_those_of_the_joined_vocabulary_for_both_libraries(
    kind: str, tokens_at_end: tuple[str, ...], tmp_path: Path
) -> None:
    """Also where tokens of the others come after added ones, which the library would number."""
    files = files_of(with_added(KINDS[kind](SEA), *tokens_at_end))
    other = with_added(KINDS[kind](FOREST), "<a>", TOOL, "<c>")
    joined = join({"one": vocabulary_of(files), "other": vocabulary_of(other)})
    made = tokenizer_files(joined, files)
    assert loaded(made).get_vocab() == joined.vocabulary.ids
    theirs = AutoTokenizer.from_pretrained(lay_down(tmp_path / "made", made))
    assert theirs.get_vocab() == joined.vocabulary.ids
    found = theirs.added_tokens_decoder
    assert {token.content for token in found.values()} == set(joined.vocabulary.added)
    tool = found[joined.vocabulary.ids["<tool>"]]
    assert (tool.lstrip, tool.normalized, tool.special) == (True, False, False)
    assert found[joined.vocabulary.ids["<c>"]].special


CLASSES: dict[str, tuple[Make, dict[str, Any]]] = {
    "GPT2Tokenizer": (
        lambda text: bpe(text, special=["<|endoftext|>"]),
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
    ),
    "LlamaTokenizer": (
        llama,
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": False},
    ),
    "BertTokenizer": (word_piece, {"do_lower_case": True}),
    "T5Tokenizer": (unigram, {"eos_token": "</s>", "unk_token": "<unk>", "extra_ids": 0}),
}


@pytest.mark.parametrize("name", CLASSES)
def test_classes_that_build_themselves_anew_come_to_the_same_ids(name: str, tmp_path: Path) -> None:
    make, config = CLASSES[name]
    pad = config.get("eos_token", "[PAD]")
    files = files_of(
        with_added(make(SEA), "<a>", "<b>"), tokenizer_class=name, pad_token=pad, **config
    )
    other = with_added(make(FOREST), "<c>")
    joined = join({"one": vocabulary_of(files), "other": vocabulary_of(other)})
    theirs = AutoTokenizer.from_pretrained(
        lay_down(tmp_path / "made", tokenizer_files(joined, files))
    )
    assert type(theirs).__name__ == name
    assert theirs.get_vocab() == joined.vocabulary.ids
    before = AutoTokenizer.from_pretrained(lay_down(tmp_path / "before", files))
    for text in ("sea", "The sun", "<a>"):
        assert theirs.decode(theirs(text)["input_ids"]) == before.decode(before(text)["input_ids"])


def test_text_is_split_alike_by_both_libraries(tmp_path: Path) -> None:
    files = files_of(with_added(bpe(SEA), "<a>"), eos_token=END)
    joined = join({"one": vocabulary_of(files), "other": vocabulary_of(bpe(FOREST))})
    made = tokenizer_files(joined, files)
    theirs = AutoTokenizer.from_pretrained(lay_down(tmp_path / "made", made))
    for text in PROBES:
        assert theirs(text)["input_ids"] == loaded(made).encode(text).ids


def test_files_of_a_vocabulary_that_is_kept_are_kept_byte_for_byte() -> None:
    files = files_of(with_added(bpe(SEA), "<a>")) | {
        "added_tokens.json": b'{\n  "<a>" : 300}',
        "chat_template.jinja": b"{{ messages }}",
    }
    vocabularies = {"one": vocabulary_of(files), "other": vocabulary_of(bpe(FOREST))}
    assert tokenizer_files(join(vocabularies, donor="one"), files) == files
    rules = {END: TokenRule(source=TokenOf(model="other"), force=True)}
    assert tokenizer_files(join(vocabularies, donor="one", rules=rules), files) == files


def test_what_stands_beside_and_still_holds_goes_along() -> None:
    """Vocabularies in other forms would contradict tokenizer.json, and are left out."""
    files = files_of(with_added(bpe(SEA), PAD), padding_side="left", model_max_length=77) | {
        "special_tokens_map.json": json.dumps({"pad_token": {"content": PAD}}).encode(),
        "added_tokens.json": b'{"<|pad|>": 300}',
        "vocab.json": b"{}",
        "merges.txt": b"",
        "tokenizer.model": b"x",
        "chat_template.jinja": b"{{ messages }}",
        "chat_template.json": b'{"chat_template": ""}',
    }
    joined = join({"one": vocabulary_of(files), "other": vocabulary_of(bpe(FOREST))})
    made = tokenizer_files(joined, files)
    assert set(made) == {
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
        *("chat_template.jinja", "chat_template.json"),
    }
    for name in ("special_tokens_map.json", "chat_template.jinja", "chat_template.json"):
        assert made[name] == files[name]
    config = json.loads(made["tokenizer_config.json"])
    assert (config["padding_side"], config["model_max_length"]) == ("left", 77)
    assert config["pad_token"] == PAD
    assert config["added_tokens_decoder"]["300"] == {
        "content": PAD,
        "special": True,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_as_the_same_vocabulary(kind: str) -> None:
    files = files_of(with_added(KINDS[kind](SEA), "<a>"))
    joined = join({"one": vocabulary_of(files), "other": vocabulary_of(KINDS[kind](FOREST))})
    again = vocabulary_of(tokenizer_files(joined, files), joined.vocabulary.rows)
    for part in ("rows", "ids", "added", "merges", "roles", "spelling"):
        assert getattr(again, part) == getattr(joined.vocabulary, part), part


def test_tokens_around_a_text_are_those_of_the_first() -> None:
    first = bpe(SEA)
    first.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, first.token_to_id(END))]
    )
    files = files_of(first)
    joined = join({"one": vocabulary_of(files), "other": vocabulary_of(bpe(FOREST))})
    assert written(joined, files).encode("a").tokens[-1] == END


def test_merges_are_written_so_that_older_libraries_read_them_wherever_they_can_be() -> None:
    files = files_of(bpe(SEA))
    joined = join({"one": vocabulary_of(files), "other": vocabulary_of(bpe(FOREST))})
    made = json.loads(tokenizer_files(joined, files)["tokenizer.json"])
    pairs = [" ".join(pair) for pair in joined.vocabulary.merges]
    assert made["model"]["merges"] == pairs


def test_merges_of_tokens_with_spaces_are_written_as_pairs() -> None:
    def spaced(letters: str) -> dict[str, bytes]:
        document = json.loads(bpe("a").to_str())
        vocab = {" ": 0, letters: 1, f" {letters}": 2}
        document["model"] |= {"vocab": vocab, "merges": [[" ", letters]]}
        document |= {"added_tokens": [], "pre_tokenizer": None, "decoder": None}
        return {"tokenizer.json": json.dumps(document).encode()}

    files = spaced("a")
    joined = join({"one": vocabulary_of(files), "other": vocabulary_of(spaced("b"))})
    assert written(joined, files).encode(" a b").tokens == [" a", " b"]


def test_holes_in_the_ids_stay_holes() -> None:
    """The library takes the number of tokens for the first free id, which a hole makes too low."""
    first = bpe(SEA)
    document = json.loads(first.to_str())
    vocab = document["model"]["vocab"]
    last = max(vocab, key=vocab.__getitem__)
    vocab[last] = 500
    files = {"tokenizer.json": json.dumps(document).encode()}
    other = with_added(bpe(SEA), "<a>", "<b>")
    joined = join({"one": vocabulary_of(files), "other": vocabulary_of(other)})
    assert joined.vocabulary.ids["<a>"] == 501
    assert written(joined, files).get_vocab() == joined.vocabulary.ids
    assert vocabulary_of(tokenizer_files(joined, files)).ids == joined.vocabulary.ids


def test_tokenizer_from_before_tokenizer_json_gets_one(tmp_path: Path) -> None:
    folder = lay_down(tmp_path / "old", {})
    bpe(SEA, special=["<|endoftext|>"]).model.save(str(folder))
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    joined = join({"one": vocabulary_of(files), "other": vocabulary_of(bpe(FOREST))})
    made = tokenizer_files(joined, files)
    assert set(made) == {"tokenizer.json", "tokenizer_config.json"}
    theirs = AutoTokenizer.from_pretrained(lay_down(tmp_path / "made", made))
    assert theirs.get_vocab() == joined.vocabulary.ids
    assert isinstance(theirs.backend_tokenizer, Tokenizer)
    for text in PROBES:
        assert theirs.decode(theirs(text)["input_ids"]) == text
