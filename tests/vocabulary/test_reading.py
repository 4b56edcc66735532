"""The ids that are read are those that the tokenizer has once it is loaded."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models
from transformers import AutoTokenizer, BertTokenizer, GPT2Tokenizer

from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.vocabulary import Vocabulary, read_vocabulary
from tensorsurgeon.vocabulary.writing import as_document
from tests.vocabulary.makers import (
    END,
    FOREST,
    KINDS,
    PAD,
    PROBES,
    SEA,
    bpe,
    files_of,
    lay_down,
    loaded,
    vocabulary_of,
    with_added,
    word_piece,
)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_have_the_ids_that_the_library_gives_them(kind: str) -> None:
    added = AddedToken("<tool>", normalized=False, lstrip=True)
    tokenizer = with_added(KINDS[kind](SEA), END, added, "ship")
    found = vocabulary_of(tokenizer)
    assert found.ids == tokenizer.get_vocab()
    assert list(found.ids.values()) == sorted(found.ids.values())
    assert found.spelling.kind == kind
    of_library = tokenizer.get_added_tokens_decoder()
    assert {number: token.content for number, token in of_library.items()} == {
        found.ids[content]: content for content in found.added
    }
    for token in of_library.values():
        how = found.added[token.content]
        assert (how.special, how.lstrip, how.normalized) == (
            token.special,
            token.lstrip,
            token.normalized,
        )


def test_merges_are_read_in_both_forms() -> None:
    files = files_of(bpe(SEA))
    document = json.loads(files["tokenizer.json"])
    found = vocabulary_of(files)
    pairs = document["model"]["merges"]
    assert found.merges == tuple(map(tuple, pairs))
    document["model"]["merges"] = [" ".join(pair) for pair in pairs]
    files["tokenizer.json"] = json.dumps(document).encode()
    assert vocabulary_of(files).merges == found.merges


def test_model_without_a_type_is_told_by_what_it_has() -> None:
    for kind in ("BPE", "Unigram", "WordPiece"):
        files = files_of(KINDS[kind](SEA))
        document = json.loads(files["tokenizer.json"])
        del document["model"]["type"]
        found = vocabulary_of({"tokenizer.json": json.dumps(document).encode()})
        assert found == vocabulary_of({"tokenizer.json": files["tokenizer.json"]})


def declare(tokenizer: Tokenizer, **files: Any) -> dict[str, bytes]:
    """The tokenizer's files with further ones, or others in their place."""
    given = {f"{name}.json": json.dumps(value).encode() for name, value in files.items()}
    return files_of(tokenizer) | given


@pytest.mark.parametrize(
    "beside",
    [
        {
            "tokenizer_config": {
                "added_tokens_decoder": {
                    "301": {"content": "<b>", "special": False, "normalized": True},
                    "300": {"content": PAD, "special": True, "normalized": False},
                },
                "pad_token": PAD,
            },
            # Which does not count beside a list in tokenizer_config.json.
            "special_tokens_map": {"pad_token": "<nothing>"},
            "added_tokens": {"<nothing>": 7},
        },
        {
            "tokenizer_config": {"pad_token": None},
            "special_tokens_map": {"pad_token": {"content": PAD, "lstrip": False}},
            "added_tokens": {"<b>": 301, PAD: 300},
        },
        {
            "tokenizer_config": {"extra_special_tokens": {"pad_token": PAD}, "pad_token": PAD},
            "added_tokens": {"<b>": 301, PAD: 300},
        },
    ],
)
def test_added_tokens_of_other_files_are_read_as_transformers_does(
    beside: dict[str, Any], tmp_path: Path
) -> None:
    files = declare(bpe(SEA), **beside)
    found = vocabulary_of(files)
    assert found.ids[PAD] == 300
    assert found.ids["<b>"] == 301
    assert found.roles["pad_token"] == PAD
    assert found.added[PAD].special
    assert not found.added["<b>"].special
    theirs = AutoTokenizer.from_pretrained(lay_down(tmp_path / "model", files))
    assert found.ids == theirs.get_vocab()
    assert theirs.pad_token == PAD


def test_token_of_two_files_is_found_as_the_first_says() -> None:
    tokenizer = with_added(bpe(SEA), AddedToken("<b>", lstrip=True))
    again = {"content": "<b>", "special": False, "lstrip": False}
    files = declare(tokenizer, tokenizer_config={"added_tokens_decoder": {"300": again}})
    assert vocabulary_of(files).added["<b>"].lstrip


@pytest.mark.parametrize("config", [{}, {"tokenizer_class": "GPT2Tokenizer"}])
def test_vocab_and_merges_make_the_tokenizer_that_transformers_makes_of_them(
    config: dict[str, Any], tmp_path: Path
) -> None:
    tokenizer = bpe(FOREST, special=["<|endoftext|>"])
    folder = lay_down(tmp_path / "model", {})
    tokenizer.model.save(str(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert "tokenizer.json" not in files
    found = vocabulary_of(files)
    theirs = GPT2Tokenizer.from_pretrained(folder)
    assert found.ids == theirs.get_vocab()
    check_same(found, theirs.backend_tokenizer)


@pytest.mark.parametrize("lowercase", [True, False])
def test_lines_of_vocab_txt_make_the_tokenizer_that_transformers_makes_of_them(
    lowercase: bool, tmp_path: Path
) -> None:
    folder = lay_down(tmp_path / "model", {})
    word_piece(FOREST, lowercase=lowercase).model.save(str(folder))
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": lowercase}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    found = vocabulary_of(files)
    theirs = BertTokenizer.from_pretrained(folder)
    assert found.ids == theirs.get_vocab()
    check_same(found, theirs.backend_tokenizer)


def check_same(found: Vocabulary, theirs: Tokenizer) -> None:
    """The vocabulary's own tokenizer.json splits texts as theirs does."""
    ours = Tokenizer.from_str(json.dumps(as_document(found)))
    for text in PROBES:
        for special in (False, True):
            expected = theirs.encode(text, add_special_tokens=special)
            assert ours.encode(text, add_special_tokens=special).ids == expected.ids
            assert ours.decode(expected.ids) == theirs.decode(expected.ids)


tokens = st.text("abcd", min_size=1, max_size=3)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(tokens, unique=True, min_size=1, max_size=6),
    st.lists(st.tuples(tokens, st.integers(0, 9)), max_size=5),
    st.integers(0, 2),
)
def test_what_is_accepted_has_the_ids_of_the_library(
    words: list[str], added: list[tuple[str, int]], gap: int
) -> None:
    """Whatever ids the file says; a wrong one, and one that two tokens have, is refused."""
    vocab = {word: index + gap * (index > 1) for index, word in enumerate(words)}
    made = Tokenizer(models.WordLevel(vocab, unk_token=words[0]))
    document = json.loads(made.to_str())
    document["added_tokens"] = [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token, number in added
    ]
    files = {"tokenizer.json": json.dumps(document).encode()}
    theirs = loaded(files)
    true = all(theirs.token_to_id(token) == number for token, number in added)
    unique = len({*theirs.get_vocab().values()}) == len(theirs.get_vocab())
    if true and unique:
        assert vocabulary_of(files).ids == theirs.get_vocab()
    else:
        with pytest.raises(CheckpointError, match=r"once it is loaded|have one id"):
            vocabulary_of(files)


@pytest.mark.parametrize(
    ("files", "where", "problem", "fix"),
    [
        (
            {"tokenizer.model": b"\x0a\x0e", "tokenizer_config.json": b"{}"},
            "model/tokenizer.model",
            "is of sentencepiece, and there is no tokenizer.json beside it",
            "load the tokenizer with AutoTokenizer of transformers and write it with "
            "save_pretrained, which makes a tokenizer.json",
        ),
        ({}, "model", "has no file of a tokenizer, and no tokenizer.json", "load the tokenizer"),
        (
            {"tekken.json": b"{}"},
            "model",
            "has tekken.json, and no tokenizer.json",
            "load the tokenizer",
        ),
        (
            {
                "vocab.json": b"{}",
                "merges.txt": b"",
                "tokenizer_config.json": b'{"tokenizer_class": "CLIPTokenizer"}',
            },
            "model",
            "has merges.txt, tokenizer_config.json, vocab.json of class CLIPTokenizer, and no "
            "tokenizer.json",
            "load the tokenizer",
        ),
        (
            {"vocab.json": b'{"a</w>": 0}', "merges.txt": b""},
            "model/vocab.json",
            "has no token for 256 of the 256 bytes, so that it is not GPT-2's kind",
            "load the tokenizer",
        ),
        (
            {"vocab.txt": b"a\nb\na\n"},
            "model/vocab.txt",
            "token 'a' has two ids, 0 and 2",
            "",
        ),
        (
            {"vocab.json": b'{"a": "x"}', "merges.txt": b""},
            "model/vocab.json",
            "token 'a' has id 'x'",
            "",
        ),
        (
            {
                "vocab.json": b'{"a": 0}',
                "merges.txt": b"#version: 0.2\na a\n",
                "tokenizer_config.json": b'{"tokenizer_class": "GPT2Tokenizer"}',
            },
            "model/vocab.json with merges.txt",
            "merge 0, ['a', 'a'], needs 'aa', which is no token",
            "",
        ),
        (
            {"vocab.txt": b"a\nb\n", "tokenizer_config.json": b'{"do_lower_case": "yes"}'},
            "model/tokenizer_config.json",
            "'do_lower_case' is 'yes', not true or false",
            "",
        ),
        (
            {"vocab.txt": b"a\nb\n", "special_tokens_map.json": b'{"unk_token": "c"}'},
            "model/special_tokens_map.json",
            "'unk_token' has 'c', which is no token",
            "load the tokenizer",
        ),
        ({"vocab.txt": b"a\n\xff"}, "model/vocab.txt", "not UTF-8 at byte 2", ""),
    ],
)
def test_what_is_no_tokenizer_here_is_refused_with_what_to_do(
    files: dict[str, bytes], where: str, problem: str, fix: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_vocabulary(files, folder="model", rows=1000)
    (found,) = caught.value.problems
    assert (found.where, found.what) == (where, problem)
    assert found.fix.startswith(fix)
