"""How the library splits texts by a union of two vocabularies: what holds, and what does not."""

import json
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tensorsurgeon.vocabulary import join, tokenizer_files
from tests.vocabulary.makers import (
    FOREST,
    KINDS,
    PROBES,
    SEA,
    bpe,
    files_of,
    llama,
    loaded,
    vocabulary_of,
    with_added,
    written,
)

text = st.lists(
    st.sampled_from([*f"{SEA} {FOREST}".split(), " ", "\n", "é", "重", "🤗"]) | st.text(max_size=4),
    max_size=12,
).map(" ".join)


def union(one: Tokenizer, other: Tokenizer) -> Tokenizer:
    files = files_of(one)
    joined = join({"one": vocabulary_of(files), "other": vocabulary_of(other)})
    made = written(joined, files)
    assert made.get_vocab() == joined.vocabulary.ids
    return made


def taking_words_whole(tokenizer: Tokenizer) -> Tokenizer:
    """The same, but a word that is a token is never split, as with Llama 3."""
    document = json.loads(tokenizer.to_str())
    document["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(document))


FIRST, SECOND = bpe(SEA, 310), bpe(FOREST, 330)
BPE = {
    "merges": (FIRST, SECOND),
    "words": (taking_words_whole(FIRST), taking_words_whole(SECOND)),
}
UNIONS = {name: union(*pair) for name, pair in BPE.items()}


def ends(tokenizer: Tokenizer, content: str) -> list[int]:
    """Where each token of a text ends, in letters of the byte alphabet."""
    return list(accumulate(map(len, tokenizer.encode(content).tokens)))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(BPE)), text)
def test_joined_bpe_only_joins_tokens_of_the_first(kind: str, content: str) -> None:
    first = BPE[kind][0]
    assert {*ends(UNIONS[kind], content)} <= {*ends(first, content)}


@settings(max_examples=300, deadline=None)
@given(text)
def test_text_that_no_new_merge_applies_to_is_split_as_before(content: str) -> None:
    before = FIRST.encode(content)
    pairs = {*map(tuple, json.loads(SECOND.to_str())["model"]["merges"])}
    if not pairs & {*pairwise(before.tokens)}:
        assert UNIONS["merges"].encode(content).ids == before.ids


FIRST_OF_CHARACTERS = llama(SEA + FOREST, 150)
UNION_OF_CHARACTERS = union(FIRST_OF_CHARACTERS, llama(FOREST, 180))


@settings(max_examples=300, deadline=None)
@given(text)
def test_joined_bpe_of_characters_only_joins_tokens_of_the_first(content: str) -> None:
    """Those that neither knows are bytes to both, and the text comes back."""
    assert {*ends(UNION_OF_CHARACTERS, content)} <= {*ends(FIRST_OF_CHARACTERS, content)}
    ids = UNION_OF_CHARACTERS.encode(content).ids
    before = FIRST_OF_CHARACTERS.encode(content).ids
    assert UNION_OF_CHARACTERS.decode(ids) == FIRST_OF_CHARACTERS.decode(before)


@settings(max_examples=200, deadline=None)
@given(text)
def test_joined_byte_level_bpe_loses_nothing(content: str) -> None:
    joined = UNIONS["merges"]
    assert joined.decode(joined.encode(content).ids) == content


def test_joined_bpe_splits_some_texts_otherwise_than_either() -> None:
    """That is what is not promised: some words become tokens of the other."""
    joined = UNIONS["merges"]
    assert joined.encode("trees").ids != FIRST.encode("trees").ids
    tokens = {*joined.encode(FOREST).tokens}
    assert tokens & (SECOND.get_vocab().keys() - FIRST.get_vocab().keys())


def test_joined_word_level_keeps_the_words_of_the_first_and_knows_those_of_the_others() -> None:
    first, second = KINDS["WordLevel"](SEA), KINDS["WordLevel"](FOREST)
    joined = union(first, second)
    assert joined.encode(SEA).ids == first.encode(SEA).ids
    assert joined.encode(FOREST).tokens == second.encode(FOREST).tokens


@pytest.mark.parametrize("kind", ["Unigram", "WordPiece"])
def test_joined_tokens_are_tokens_of_the_models(kind: str) -> None:
    first, second = KINDS[kind](SEA), KINDS[kind](FOREST)
    joined = union(first, second)
    known = first.get_vocab().keys() | second.get_vocab().keys()
    for content in (SEA, FOREST, *PROBES):
        tokens = joined.encode(content).tokens
        assert {token for token in tokens if joined.token_to_id(token) is not None} <= known
    unknown = joined.encode(FOREST).tokens.count("[UNK]")
    assert unknown < first.encode(FOREST).tokens.count("[UNK]") or kind == "Unigram"


def test_added_tokens_of_every_model_are_found_in_a_text() -> None:
    first, second = with_added(bpe(SEA), "<a>"), with_added(bpe(FOREST), "<b>", "<c>")
    joined = union(first, second)
    found = joined.encode("the <b>sea<a> and <c>").tokens
    assert [token for token in found if token[0] == "<"] == ["<b>", "<a>", "<c>"]


def test_unigram_weighs_an_unknown_character_as_before() -> None:
    """An added token between the pieces has the lowest score, and none below."""
    first = with_added(KINDS["Unigram"](SEA), "<a>", "<b>")
    files = files_of(first)
    joined = join({"one": vocabulary_of(files), "other": vocabulary_of(KINDS["Unigram"](FOREST))})
    made = tokenizer_files(joined, files)
    pieces = json.loads(made["tokenizer.json"])["model"]["vocab"]
    scores = dict(map(tuple, pieces))
    assert scores["<a>"] == scores["<b>"] == min(joined.vocabulary.scores.values())
    assert loaded(made).get_vocab() == joined.vocabulary.ids
    assert [token for token in loaded(made).encode("sea<a>").tokens if token == "<a>"]
