"""Which tokens a joined vocabulary has, and which rows they get."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers

from tensorsurgeon.errors import ArchitectureError, RecipeError, TensorSurgeonError
from tensorsurgeon.vocabulary import (
    ZERO,
    Joined,
    RowOf,
    Sources,
    TokenOf,
    TokenRule,
    Vocabulary,
    join,
)
from tests.vocabulary.makers import (
    END,
    FOREST,
    KINDS,
    PAD,
    SEA,
    bpe,
    files_of,
    unigram,
    vocabulary_of,
    with_added,
    word_level,
    word_piece,
)


def words(**ids: int) -> Vocabulary:
    """A vocabulary of whole words with these ids."""
    document = json.loads(word_level("a").to_str())
    document["added_tokens"] = []
    document["model"] |= {"vocab": ids, "unk_token": "a"}
    return vocabulary_of({"tokenizer.json": json.dumps(document).encode()}, rows=20)


def sources(joined: Joined, model: str, token: str) -> Sources:
    """What the row of a token is made of in a model's new embedding."""
    row = joined.vocabulary.ids[token]
    (run,) = joined.maps[model].between(row, row + 1)
    return run.sources


A = words(a=0, b=1, c=2)
B = words(x=0, b=1, a=2, y=3)
C = words(y=5, b=2, z=7)
ALL = {"A": A, "B": B, "C": C}


def test_union_has_the_first_ones_tokens_and_then_the_others_by_model_and_id() -> None:
    joined = join(ALL)
    assert list(joined.vocabulary.ids.items()) == [
        *(("a", 0), ("b", 1), ("c", 2)),
        *(("x", 3), ("y", 4), ("z", 5)),
    ]
    assert joined.ground == "A"
    assert not joined.is_kept


def test_union_begins_with_the_base_wherever_it_stands() -> None:
    joined = join(ALL, base="C")
    assert joined.vocabulary.ids == {"b": 2, "y": 5, "z": 7, "a": 8, "c": 9, "x": 10}
    assert joined.ground == "C"


def test_donor_gives_its_tokens_and_no_others() -> None:
    joined = join(ALL, base="A", donor="B")
    assert joined.vocabulary.ids == B.ids
    assert joined.ground == "B"
    assert joined.is_kept


def test_token_that_a_model_has_keeps_its_own_row() -> None:
    joined = join(ALL, base="A")
    for name, vocabulary in ALL.items():
        for token, row in vocabulary.ids.items():
            assert sources(joined, name, token) == (RowOf(name, row),)


def test_missing_token_takes_the_row_of_the_base() -> None:
    joined = join(ALL, base="A")
    assert sources(joined, "C", "a") == (RowOf("A", 0),)
    assert sources(join(ALL, base="B"), "C", "a") == (RowOf("B", 2),)


def test_missing_token_that_the_base_has_not_takes_the_row_of_its_only_owner() -> None:
    joined = join(ALL, base="A")
    assert sources(joined, "A", "x") == sources(joined, "C", "x") == (RowOf("B", 0),)
    assert sources(joined, "A", "z") == (RowOf("C", 7),)


def test_missing_token_that_the_base_has_not_takes_the_mean_of_its_owners() -> None:
    assert sources(join(ALL, base="A"), "A", "y") == (RowOf("B", 3), RowOf("C", 5))
    without_base = sources(join(ALL), "C", "a")
    assert without_base == (RowOf("A", 0), RowOf("B", 2))


def test_padding_and_holes_are_zero() -> None:
    joined = join({"A": A, "C": C}, donor="C", pad_to_multiple_of=5)
    assert joined.vocabulary.rows == 10
    for name in "AC":
        rows = joined.maps[name]
        assert rows.rows == 10
        empty = [run for run in rows.runs if not run.sources]
        assert [(run.start, run.stop) for run in empty] == [(0, 2), (3, 5), (6, 7), (8, 10)]


@pytest.mark.parametrize(("multiple", "rows"), [(1, 6), (2, 6), (4, 8), (6, 6), (64, 64)])
def test_rows_become_a_multiple(multiple: int, rows: int) -> None:
    joined = join(ALL, pad_to_multiple_of=multiple)
    assert joined.vocabulary.rows == rows
    assert {found.rows for found in joined.maps.values()} == {rows}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (TokenOf(model="C"), (RowOf("C", 5),)),
        (TokenOf(model="B", token="b"), (RowOf("B", 1),)),
        (TokenOf(model="B", token=17), (RowOf("B", 17),)),
        (ZERO, ()),
    ],
)
def test_rule_gives_the_models_without_a_token_its_row(source: TokenOf, expected: Sources) -> None:
    joined = join(ALL, base="A", rules={"y": TokenRule(source=source)})
    assert sources(joined, "A", "y") == expected
    assert sources(joined, "B", "y") == (RowOf("B", 3),)
    forced = join(ALL, base="A", rules={"y": TokenRule(source=source, force=True)})
    for name in ALL:
        assert sources(forced, name, "y") == expected


def test_force_without_a_source_gives_all_what_those_without_the_token_get() -> None:
    forced = join(ALL, base="A", rules={"b": TokenRule(force=True), "y": TokenRule(force=True)})
    for name in ALL:
        assert sources(forced, name, "b") == (RowOf("A", 1),)
        assert sources(forced, name, "y") == (RowOf("B", 3), RowOf("C", 5))


def test_token_of_a_rule_that_the_donor_has_not_is_added_as_its_owner_has_it() -> None:
    owner = with_added(bpe(FOREST), AddedToken("<tool>", lstrip=True, normalized=False), PAD)
    vocabularies = {"sea": vocabulary_of(bpe(SEA)), "forest": vocabulary_of(owner)}
    rules = {"Ġtrees": TokenRule(), "<tool>": TokenRule(source=TokenOf(model="forest"))}
    joined = join(vocabularies, donor="sea", rules=rules)
    assert joined.vocabulary.ids == {**vocabularies["sea"].ids, "Ġtrees": 300, "<tool>": 301}
    assert joined.vocabulary.added["<tool>"] == vocabularies["forest"].added["<tool>"]
    assert not joined.vocabulary.added["Ġtrees"].special
    row = vocabularies["forest"].ids["Ġtrees"]
    assert sources(joined, "sea", "Ġtrees") == (RowOf("forest", row),)
    assert not joined.is_kept


@pytest.mark.parametrize(
    ("arguments", "problem", "fix"),
    [
        (
            {"base": "D"},
            "there is no model 'D' to take a vocabulary from",
            "did you mean",
        ),
        ({"donor": "Bb"}, "there is no model 'Bb'", "did you mean 'B'? known: A, B, C"),
        ({"pad_to_multiple_of": 0}, "pad_to_multiple_of is at least 1, not 0", ""),
        (
            {"rules": {"<|im_strat|>": TokenRule()}},
            "token '<|im_strat|>': no model has it",
            "did you mean '<|im_start|>'? known: <|im_start|>",
        ),
        (
            {"rules": {"y": TokenRule(source=TokenOf(model="AA"))}},
            "token 'y': there is no model 'AA'",
            "did you mean 'A'?",
        ),
        (
            {"rules": {"y": TokenRule(source=TokenOf(model="A"))}},
            "token 'y': 'A' has it not",
            "models that have it: B, C",
        ),
        (
            {"rules": {"y": TokenRule(source=TokenOf(model="B", token="bb"))}},
            "token 'y': 'B' has no token 'bb'",
            "did you mean 'b'?",
        ),
        (
            {"rules": {"y": TokenRule(source=TokenOf(model="B", token=20))}},
            "token 'y': id 20 has no row in 'B'",
            "its rows are 0 to 19",
        ),
        (
            {"rules": {"y": TokenRule(source=TokenOf(model="B", token=-1))}},
            "token 'y': id -1 has no row in 'B'",
            "its rows are 0 to 19",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused_with_what_to_do(
    arguments: Mapping[str, Any], problem: str, fix: str
) -> None:
    models = ALL | {"C": words(**C.ids, **{"<|im_start|>": 11})}
    with pytest.raises(RecipeError) as caught:
        join(models, **arguments)
    (found,) = caught.value.problems
    assert found.what.startswith(problem)
    assert fix in found.fix or fix == "did you mean"


def test_all_rules_that_are_wrong_are_told_together() -> None:
    rules = {token: TokenRule() for token in ("a", "nope", "b", "never")}
    with pytest.raises(RecipeError) as caught:
        join(ALL, rules=rules)
    assert [problem.what for problem in caught.value.problems] == [
        "token 'nope': no model has it",
        "token 'never': no model has it",
    ]


def metaspace_bpe(**model: Any) -> dict[str, bytes]:
    """A BPE tokenizer that writes a space as ▁, as Llama 2's does."""
    tokenizer = bpe(SEA)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    document = json.loads(tokenizer.to_str())
    document["model"] |= model
    return files_of(tokenizer) | {"tokenizer.json": json.dumps(document).encode()}


def changed_files(tokenizer: Any, **parts: Any) -> dict[str, bytes]:
    document = json.loads(tokenizer.to_str()) | parts
    return {"tokenizer.json": json.dumps(document).encode()}


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (
            files_of(bpe(SEA)),
            files_of(unigram(SEA)),
            "type of model: 'BPE', and 'Unigram'; a space is written as: the byte alphabet, and "
            "'▁'",
        ),
        (
            files_of(bpe(SEA)),
            metaspace_bpe(),
            "a space is written as: the byte alphabet, and '▁'",
        ),
        (metaspace_bpe(), metaspace_bpe(byte_fallback=True), "byte fallback: no, and yes"),
        (
            metaspace_bpe(),
            metaspace_bpe(end_of_word_suffix="</w>"),
            "a word ends with: nothing, and '</w>'",
        ),
        (
            files_of(word_piece(SEA)),
            files_of(word_piece(SEA, lowercase=False)),
            "normalizer: StripAccents then Lowercase, and none",
        ),
        (
            files_of(unigram(SEA)),
            changed_files(unigram(SEA), normalizer={"type": "NFKC"}),
            "normalizer: none, and NFKC",
        ),
    ],
)
def test_tokenizers_that_spell_otherwise_are_not_joined(
    one: dict[str, bytes], other: dict[str, bytes], said: str
) -> None:
    vocabularies = {"one": vocabulary_of(one), "other": vocabulary_of(other)}
    for donor in (None, "one"):
        with pytest.raises(ArchitectureError) as caught:
            join(vocabularies, donor=donor)
        (problem,) = caught.value.problems
        assert problem.what == (
            "the vocabularies of 'one' and 'other' cannot be joined: the same string is another "
            f"piece of text to each ({said})"
        )
        assert problem.fix == "merge models whose tokenizers are of one kind"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_models_of_two_types_are_not_joined_and_those_of_one_are(kind: str, other: str) -> None:
    refused = False
    try:
        join({"a": vocabulary_of(KINDS[kind](SEA)), "b": vocabulary_of(KINDS[other](FOREST))})
    except TensorSurgeonError:
        refused = True
    assert refused == (kind != other)


def test_two_ways_to_write_the_same_space_are_joined() -> None:
    """Llama 2's tokenizers were written with a normalizer first, and later without one."""
    old = bpe(SEA)
    old.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    old.pre_tokenizer = None
    old.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    joined = join({"old": vocabulary_of(old), "new": vocabulary_of(metaspace_bpe())})
    assert joined.is_kept
    assert joined.notes == (
        "the tokenizer of 'new' cuts texts into words otherwise than that of 'old', whose way the "
        "result has",
    )


def test_composed_letters_are_no_difference() -> None:
    """NFC makes one text of two that are the same letters."""
    composed = bpe(SEA)
    composed.normalizer = normalizers.NFC()
    assert join({"a": vocabulary_of(bpe(SEA)), "b": vocabulary_of(composed)}).is_kept


def test_added_token_that_is_looked_for_otherwise_is_noted() -> None:
    a = with_added(bpe(SEA), AddedToken("<x>", lstrip=True), AddedToken("<y>", lstrip=True))
    b = with_added(bpe(SEA), AddedToken("<x>", rstrip=True), AddedToken("<y>"))
    joined = join({"a": vocabulary_of(a), "b": vocabulary_of(b)})
    assert joined.vocabulary.added == vocabulary_of(a).added
    assert joined.notes == (
        "the tokenizer of 'b' looks otherwise for '<x>' and 1 more than that of 'a', whose way "
        "the result has",
    )


def test_token_that_another_adds_is_added_in_the_union() -> None:
    """It is looked for before a text is split, as the model that adds it is used to."""
    a = vocabulary_of(bpe(SEA))
    plain = "".join(a.merges[-1])
    joined = join({"a": a, "b": vocabulary_of(with_added(bpe(SEA), plain))})
    assert joined.vocabulary.ids == a.ids
    assert set(joined.vocabulary.added) == {END, plain}
    assert not joined.is_kept
