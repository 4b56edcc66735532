"""What holds of any vocabularies that are joined."""

import json
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from tensorsurgeon.vocabulary import Joined, RowOf, Sources, Vocabulary, join
from tests.vocabulary.makers import vocabulary_of, word_level

ROWS = 40
FRAME = json.loads(word_level("a").to_str())

words = st.text("abc", min_size=1, max_size=2)


def of_words(ids: dict[str, int]) -> Vocabulary:
    model = FRAME["model"] | {"vocab": ids, "unk_token": next(iter(ids))}
    document = FRAME | {"added_tokens": [], "model": model}
    return vocabulary_of({"tokenizer.json": json.dumps(document).encode()}, ROWS)


@st.composite
def vocabularies(draw: st.DrawFn) -> Vocabulary:
    """Words with any ids, holes among them."""
    tokens = draw(st.lists(words, unique=True, min_size=1, max_size=8))
    numbers = draw(st.permutations(range(ROWS)))
    return of_words(dict(zip(tokens, numbers, strict=False)))


several = st.lists(vocabularies(), min_size=1, max_size=4).map(
    lambda made: {f"m{number}": vocabulary for number, vocabulary in enumerate(made)}
)


def spelled_out(joined: Joined, model: str) -> Iterator[tuple[int, Sources]]:
    """Each row of a model's new embedding, and what it is made of."""
    for run in joined.maps[model].runs:
        for step in range(run.stop - run.start):
            moved = tuple(RowOf(source.model, source.row + step) for source in run.sources)
            yield run.start + step, moved


@given(vocabularies(), st.integers(1, 3))
def test_a_vocabulary_joined_with_itself_is_itself(one: Vocabulary, times: int) -> None:
    joined = join({f"m{number}": one for number in range(times)})
    assert joined.is_kept
    assert joined.vocabulary.ids == one.ids
    for name in joined.maps:
        for row, sources in spelled_out(joined, name):
            own = (RowOf(name, row),)
            assert sources == (own if row in one.ids.values() else ())


@given(several)
def test_union_has_every_token_and_keeps_the_ids_of_the_first(
    models: dict[str, Vocabulary],
) -> None:
    ids = join(models).vocabulary.ids
    first = next(iter(models.values()))
    assert set(ids) == {token for vocabulary in models.values() for token in vocabulary.ids}
    assert ids.items() >= first.ids.items()
    assert len({*ids.values()}) == len(ids)
    new = [number for token, number in ids.items() if token not in first.ids]
    assert new == [*range(first.end, first.end + len(new))]


@settings(max_examples=300)
@given(several, st.data())
def test_every_row_is_made_of_rows_of_its_token(
    models: dict[str, Vocabulary], data: st.DataObject
) -> None:
    names = [None, *models]
    base, donor = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names))
    joined = join(models, base=base, donor=donor, pad_to_multiple_of=data.draw(st.integers(1, 64)))
    tokens = {number: token for token, number in joined.vocabulary.ids.items()}
    for name, vocabulary in models.items():
        rows = dict(spelled_out(joined, name))
        assert list(rows) == [*range(joined.vocabulary.rows)]
        for row, sources in rows.items():
            token = tokens.get(row)
            if token is None:
                assert sources == ()
                continue
            assert sources == tuple(RowOf(s.model, models[s.model].ids[token]) for s in sources)
            owners = [other for other in models if token in models[other].ids]
            given = [name] if token in vocabulary.ids else [base] if base in owners else owners
            assert [source.model for source in sources] == given


@given(several)
def test_no_row_depends_on_the_order_of_the_models(models: dict[str, Vocabulary]) -> None:
    """Only ids do, and the order in which the rows of a mean are added."""
    back = dict(reversed(models.items()))
    one, other = join(models), join(back)
    assert set(one.vocabulary.ids) == set(other.vocabulary.ids)
    for name in models:
        here, there = dict(spelled_out(one, name)), dict(spelled_out(other, name))
        for token, row in one.vocabulary.ids.items():
            assert {*here[row]} == {*there[other.vocabulary.ids[token]]}
