"""Runs of rows: they say of every row what it is made of, and are as few as can be."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tensorsurgeon.vocabulary.rows import RowMap, RowOf, Run, Sources, row_map

sources = st.lists(
    st.builds(RowOf, st.sampled_from("ab"), st.integers(0, 4)), max_size=2, unique=True
).map(tuple)
consecutive = st.builds(
    lambda first, count: [
        tuple(RowOf(source.model, source.row + step) for source in first) for step in range(count)
    ],
    sources,
    st.integers(1, 6),
)
embeddings = st.lists(consecutive, max_size=6).map(lambda parts: [row for p in parts for row in p])


def spelled_out(rows: RowMap, start: int, stop: int) -> list[Sources]:
    """The sources of each output row of a span."""
    return [
        tuple(RowOf(source.model, source.row + step) for source in run.sources)
        for run in rows.between(start, stop)
        for step in range(run.stop - run.start)
    ]


@given(embeddings)
def test_runs_say_what_every_row_is_made_of(rows: list[Sources]) -> None:
    made = row_map(rows)
    assert made.rows == len(rows)
    assert spelled_out(made, 0, len(rows)) == rows
    assert made.models == tuple(sorted({source.model for row in rows for source in row}))


@given(embeddings)
def test_runs_have_no_gap_and_no_two_could_be_one(rows: list[Sources]) -> None:
    runs = row_map(rows).runs
    assert [run.start for run in runs] == [0, *(run.stop for run in runs)][: len(runs)]
    for one, other in pairwise(runs):
        length = one.stop - one.start
        goes_on = tuple(RowOf(source.model, source.row + length) for source in one.sources)
        assert goes_on != other.sources


@given(embeddings, st.data())
def test_a_span_has_the_rows_of_the_span(rows: list[Sources], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    made = row_map(rows)
    assert spelled_out(made, start, stop) == rows[start:stop]
    cut = [run for run in made.between(start, stop) if run.start < start or run.stop > stop]
    assert not cut


def read_span(
    rows: RowMap, embeddings: dict[str, NDArray[np.float32]], columns: int, start: int, stop: int
) -> NDArray[np.float32]:
    """Elements [start, stop) of the flattened new embedding, as an engine would stream them."""
    out = np.zeros(stop - start, np.float32)
    for run in rows.between(start // columns, -(-stop // columns)):
        first, last = max(start, run.start * columns), min(stop, run.stop * columns)
        part = out[first - start : last - start]
        for source in run.sources:
            moved = (source.row - run.start) * columns
            part += embeddings[source.model].reshape(-1)[first + moved : last + moved]
        if len(run.sources) > 1:
            part /= len(run.sources)
    return out


@given(embeddings, st.integers(1, 5), st.lists(st.integers(0, 200), max_size=5))
def test_spans_cut_anywhere_make_the_embedding(
    rows: list[Sources], columns: int, cuts: list[int]
) -> None:
    random = np.random.default_rng(0)
    models = {name: random.standard_normal((12, columns), np.float32) for name in "ab"}
    expected = np.zeros((len(rows), columns), np.float32)
    for row, made_of in zip(expected, rows, strict=True):
        for source in made_of:
            row += models[source.model][source.row]
        row /= max(len(made_of), 1)
    size = expected.size
    ends = sorted({0, size, *(cut for cut in cuts if cut < size)})
    made = row_map(rows)
    parts = [read_span(made, models, columns, start, stop) for start, stop in pairwise(ends)]
    assert np.concatenate([*parts, np.zeros(0)]).tolist() == expected.reshape(-1).tolist()


def test_rows_of_equal_content_are_one_key() -> None:
    one = row_map([(RowOf("a", 0),), (RowOf("a", 1),)])
    other = RowMap(runs=(Run(start=0, stop=2, sources=(RowOf("a", 0),)),))
    assert {one: "x"}[other] == "x"


def test_embedding_kept_as_it_is_is_one_run() -> None:
    made = row_map([(RowOf("a", row),) for row in range(7)])
    assert len(made.runs) == 1
    assert made.keeps("a", 7)
    assert not made.keeps("a", 8)
    assert not made.keeps("b", 7)
    assert not row_map([(RowOf("a", row),) for row in range(1, 7)]).keeps("a", 6)
