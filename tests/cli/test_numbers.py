"""Averages and arcs against a few lines of float64, for every dtype that is computed on."""

import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tensorsurgeon import api
from tests.cli.checkpoints import (
    NUMPY_DTYPES,
    TORCH_NAMES,
    Tensors,
    llama_config,
    odd_tensors,
    read_tensors,
    write_checkpoint,
)

Array = NDArray[np.float64]
Merge = Callable[..., Tensors]


@pytest.fixture
def merge(tmp_path: Path) -> Merge:
    """Writes models `a`, `b`, …, applies an expression over them, and reads the result."""
    numbers = itertools.count()

    def merge(expression: str, *models: Tensors, dtype: str | None = None) -> Tensors:
        folder = tmp_path / str(next(numbers))
        names = "abcd"[: len(models)]
        for name, tensors in zip(names, models, strict=True):
            write_checkpoint(folder / name, tensors, llama_config(1))
        sources = ", ".join(f"{name}: ./{name}" for name in names)
        wanted = f", dtype: {TORCH_NAMES[dtype]}" if dtype else ""
        recipe = folder / "recipe.yaml"
        recipe.write_text(
            f"models: {{{sources}}}\nresult: {expression}\noutput: {{path: ./out{wanted}}}\n"
        )
        result = api.apply(api.plan(recipe))
        merge.notes = result.notes  # type: ignore[attr-defined]
        return read_tensors(folder / "out")

    return merge


def linear(weights: list[float], *inputs: Array) -> Array:
    """A weighted sum."""
    return np.asarray(sum(weight * x for weight, x in zip(weights, inputs, strict=True)))


def slerp(t: float, a: Array, b: Array) -> Array:
    """Shoemake's formula with the angle between the flattened tensors."""
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    if norms == 0:
        return linear([1 - t, t], a, b)
    angle = math.acos(np.clip(np.vdot(a, b) / norms, -1, 1))
    if math.sin(angle) < 1e-12:
        return linear([1 - t, t], a, b)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def units_between(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.int64]:
    """How many values of their dtype lie between two arrays' elements."""

    def steps(values: NDArray[Any]) -> NDArray[np.int64]:
        bits = values.view(f"i{values.dtype.itemsize}").astype(np.int64)
        lowest = -(1 << (8 * values.dtype.itemsize - 1))
        return np.where(bits < 0, lowest - bits, bits)

    assert left.dtype == right.dtype
    return np.abs(steps(left.reshape(-1)) - steps(right.reshape(-1)))


def assert_rounded(found: Tensors, expected: Mapping[str, Array], dtype: str) -> None:
    """Each value is the nearest of its dtype, or on one in a thousand elements a neighbour.

    What cancels out is held to the size of what it came from: where the inputs' difference is
    far smaller than they are, float32 has no more to give.
    """
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == NUMPY_DTYPES[dtype]
        assert found[name].shape == values.shape
        if values.size == 0:
            continue
        if dtype in ("F32", "F64"):
            np.testing.assert_allclose(
                found[name].astype(np.float64),
                values,
                rtol=2**-24 if dtype == "F32" else 1e-12,
                atol=1e-13,
            )
            continue
        units = units_between(found[name], values.astype(NUMPY_DTYPES[dtype]))
        print(dtype, name, units.max(), (units > 0).mean(), (units > 1).sum())
        cancelled = np.abs(values).reshape(-1) < 2**-12
        assert units[~cancelled].max(initial=0) <= 1, name
        assert np.count_nonzero(units) <= max(units.size / 1000, 1), name


EXPRESSIONS: dict[str, tuple[str, Callable[[Array, Array], Array]]] = {
    "average": ("{linear: {models: [a, b]}}", lambda a, b: linear([0.5, 0.5], a, b)),
    "weights": (
        "{linear: {models: [a, b], weights: [3, 7.1]}}",
        lambda a, b: linear([3 / 10.1, 7.1 / 10.1], a, b),
    ),
    "difference": (
        "{linear: {models: [a, b], weights: [1.3, -0.4], normalize: false}}",
        lambda a, b: linear([1.3, -0.4], a, b),
    ),
    "arc": ("{slerp: {models: [a, b], t: 0.3}}", lambda a, b: slerp(0.3, a, b)),
    "nested": (
        "{slerp: {models: [{linear: {models: [a, b], weights: [1, 3]}}, "
        "{slerp: {models: [b, a], t: 0.1}}], t: 0.6}}",
        lambda a, b: slerp(0.6, linear([0.25, 0.75], a, b), slerp(0.1, b, a)),
    ),
}


@pytest.mark.parametrize("dtype", TORCH_NAMES)
@pytest.mark.parametrize(("expression", "reference"), EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_result_is_the_float64_reference_rounded(
    expression: str, reference: Callable[[Array, Array], Array], dtype: str, merge: Merge
) -> None:
    a, b = odd_tensors(dtype=dtype, seed=1), odd_tensors(dtype=dtype, seed=2)
    expected = {
        name: reference(tensor.astype(np.float64), b[name].astype(np.float64))
        for name, tensor in a.items()
    }
    assert_rounded(merge(expression, a, b), expected, dtype)
