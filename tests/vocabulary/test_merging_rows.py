"""Embeddings made of other embeddings' rows: those of the map, and little is read beside."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tensorsurgeon.checkpoint import ShardReader, identify
from tensorsurgeon.checkpoint.header import read_header
from tensorsurgeon.execute.evaluate import Evaluator, spans
from tensorsurgeon.execute.inputs import NodeInputs, as_values
from tensorsurgeon.kernels import Scratch, Values
from tensorsurgeon.operators.streaming import Read
from tensorsurgeon.plan import Stored, Streamed, Zeros, buffers_needed, memory_needed
from tensorsurgeon.plan.nodes import bytes_read, read_twice_in
from tensorsurgeon.plan.vocabularies import as_operator
from tensorsurgeon.specs import SPAN, DType, TensorSpec
from tensorsurgeon.vocabulary.rows import RowMap, RowOf, row_map
from tests.vocabulary.test_rows import embeddings

Embeddings = Mapping[str, NDArray[Any]]


def exact(rows: RowMap, models: Embeddings) -> NDArray[np.float64]:
    """The new embedding, a row at a time."""
    columns = next(iter(models.values())).shape[1]
    made = np.zeros((rows.rows, columns))
    for run in rows.runs:
        for number in range(run.start, run.stop):
            for source in run.sources:
                made[number] += models[source.model][source.row + number - run.start]
            made[number] /= max(len(run.sources), 1)
    return made


def reading(rows: RowMap, models: Embeddings, told: list[tuple[str, int, int]]) -> Read:
    """What the engine would read spans by; every read of a source is told."""
    names, columns = list(models), next(iter(models.values())).shape[1]
    operator = as_operator(rows, {name: len(values) for name, values in models.items()})
    inputs = tuple(Zeros(dtype=DType.F64, shape=values.shape) for values in models.values())
    node = Streamed(
        operator=operator,
        parameters=(),
        inputs=inputs,
        name="w",
        seed=0,
        made=(rows.rows, columns),
    )

    def read(which: Any, start: int, buffer: Values) -> Any:
        told.append((names[which], start, start + len(buffer)))
        flat = models[names[which]].reshape(-1)
        assert start + len(buffer) <= len(flat)
        buffer[:] = flat[start : start + len(buffer)]
        return as_values(buffer)

    numbers = cast("Any", tuple(range(len(names))))
    return operator.begin(NodeInputs(node, numbers, read, Scratch(9), lambda text: None))


def gathered(rows: RowMap, models: Embeddings, cuts: list[int]) -> NDArray[np.float64]:
    size = rows.rows * next(iter(models.values())).shape[1]
    read, out = reading(rows, models, []), np.full(size, np.nan)
    ends = sorted({0, size, *(cut for cut in cuts if cut < size)})
    for start, stop in pairwise(ends):
        read(start, out[start:stop])
    return out.reshape(rows.rows, -1)


def two(rows: int, columns: int) -> dict[str, NDArray[np.float64]]:
    random = np.random.default_rng(0)
    return {name: random.standard_normal((rows, columns)) for name in "ab"}


@given(embeddings.filter(bool), st.integers(1, 5), st.lists(st.integers(0, 200), max_size=5))
def test_rows_are_those_of_the_map_wherever_spans_are_cut(
    sources: list[tuple[RowOf, ...]], columns: int, cuts: list[int]
) -> None:
    rows, models = row_map(sources), two(12, columns)
    assert gathered(rows, models, cuts).tolist() == exact(rows, models).tolist()


@pytest.mark.parametrize("columns", [1, 7, 1000, SPAN - 1, SPAN, SPAN + 3])
def test_rows_of_any_length_are_gathered(columns: int) -> None:
    random = np.random.default_rng(1)
    models = two(6, columns)
    sources = [
        tuple(RowOf(str(random.choice(["a", "b"])), int(row)) for row in random.integers(0, 6, n))
        for n in (1, 0, 2, 1, 3, 1, 1)
    ]
    rows = row_map(sources)
    found = gathered(rows, models, [SPAN, 2 * SPAN])
    np.testing.assert_allclose(found, exact(rows, models), rtol=1e-15)


def test_spans_may_be_read_in_any_order() -> None:
    models = two(4000, 100)
    order = np.random.default_rng(0).permutation(4000)
    rows = row_map([(RowOf("ab"[row % 2], int(row)),) for row in order])
    read, wanted = reading(rows, models, []), exact(rows, models).reshape(-1)
    for start, stop in reversed(list(spans(len(wanted)))):
        out = np.empty(stop - start)
        read(start, out)
        assert out.tolist() == wanted[start:stop].tolist()


def test_run_of_rows_is_read_in_spans_and_nothing_beside() -> None:
    told: list[tuple[str, int, int]] = []
    models = two(3000, 300)
    rows = row_map([(RowOf("a", row),) for row in range(2000)] + [(RowOf("b", 7),)])
    read = reading(rows, models, told)
    for start, stop in spans(rows.rows * 300):
        read(start, np.empty(stop - start))
    assert [name for name, *_ in told] == ["a", "a", "a", "b"]
    assert sum(stop - start for _, start, stop in told) == 2001 * 300


def stored(folder: Path, rows: int, columns: int) -> dict[str, Stored]:
    """Embeddings in files."""
    made = {}
    for name, values in two(rows, columns).items():
        path = folder / f"{name}.safetensors"
        save_file({"w": values.astype(ml_dtypes.bfloat16)}, path)
        made[name] = Stored(tensor=read_header(path)["w"], source=name)
    return made


SCATTERED = np.random.default_rng(5).permutation(3000)

MAPS: dict[str, tuple[list[tuple[RowOf, ...]], bool]] = {
    "most rows, and a few of another": (
        [(RowOf("a", row),) for row in range(2900)]
        + [(RowOf("b", 100 + row),) for row in range(9)],
        False,
    ),
    "another order": ([(RowOf("a", int(row)),) for row in SCATTERED], True),
    "every third": ([(RowOf("a", row),) for row in range(0, 3000, 3)], True),
    "means": (
        [(RowOf("a", row), RowOf("b", int(SCATTERED[row]))) for row in range(3000)],
        True,
    ),
}


@pytest.mark.parametrize(("sources", "twice"), MAPS.values(), ids=MAPS)
def test_forecast_of_bytes_is_what_is_read(
    sources: list[tuple[RowOf, ...]], twice: bool, tmp_path: Path
) -> None:
    files, rows = stored(tmp_path, 3000, 700), row_map(sources)
    used = {name: files[name] for name in ("a", *(n for n in rows.models if n != "a"))}
    node = Streamed(
        operator=as_operator(rows, dict.fromkeys(used, 3000)),
        parameters=(),
        inputs=tuple(used.values()),
        name="w",
        seed=0,
        made=(rows.rows, 700),
    )
    counts: list[int] = []
    reader = ShardReader({f.tensor.path: identify(f.tensor.path) for f in used.values()})
    job = [(node, DType.BF16)]
    evaluator = Evaluator(reader, Scratch(buffers_needed(job)), counts.append, print, {})
    spec = TensorSpec(name="w", dtype=DType.BF16, shape=node.shape)
    ready = evaluator.prepare(node, spec)
    found = np.empty(spec.elements)
    for start, stop in spans(spec.elements):
        evaluator.read(ready, start, found[start:stop])
    reader.close()
    models = {
        name: values.astype(ml_dtypes.bfloat16).astype(np.float64)
        for name, values in two(3000, 700).items()
    }
    assert found.reshape(node.shape).tolist() == exact(rows, models).tolist()
    # At most one row is read along for each that is wanted.
    assert bytes_read(node) <= sum(counts) <= 2 * bytes_read(node)
    assert sum(counts) == bytes_read(node) or twice
    assert bool(list(read_twice_in(node))) is twice
    assert memory_needed(job, 1) < 120_000_000


def test_map_that_takes_nothing_of_a_model_reads_nothing_of_it() -> None:
    told: list[tuple[str, int, int]] = []
    rows = row_map([(RowOf("b", row),) for row in range(9)] + [()])
    read = reading(rows, two(9, 5), told)
    out = np.empty(50)
    read(0, out)
    assert {name for name, *_ in told} == {"b"}
    assert not out[45:].any()
