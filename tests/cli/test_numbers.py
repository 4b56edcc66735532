"""Averages and arcs against a few lines of float64, and what becomes of NaN, zero and infinity."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tensorsurgeon import api
from tests.cli.checkpoints import (
    LARGEST,
    NUMPY_DTYPES,
    TORCH_NAMES,
    Tensors,
    llama_config,
    odd_tensors,
    read_tensors,
    write_checkpoint,
)
from tests.cli.conftest import Command, Refused

Array = NDArray[np.float64]

NAME = "model.layers.0.w"
"""The only tensor of the models that are made by hand."""


def write_recipe(folder: Path, expression: str, *models: Tensors, dtype: str | None = None) -> Path:
    """Writes models `a`, `b`, … and a recipe for an expression over them."""
    names = "abcd"[: len(models)]
    for name, tensors in zip(names, models, strict=True):
        write_checkpoint(folder / name, tensors, llama_config(1))
    sources = ", ".join(f"{name}: ./{name}" for name in names)
    wanted = f", dtype: {TORCH_NAMES[dtype]}" if dtype else ""
    path = folder / "recipe.yaml"
    path.write_text(
        f"models: {{{sources}}}\nresult: {expression}\noutput: {{path: ./out{wanted}}}\n"
    )
    return path


def merged(folder: Path, expression: str, *models: Tensors, dtype: str | None = None) -> Tensors:
    """The tensors of such a recipe's result, whatever numbers are in them."""
    plan = api.plan(write_recipe(folder, expression, *models, dtype=dtype))
    api.apply(plan, allow_nonfinite=True)
    return read_tensors(folder / "out")


def one(values: Any, dtype: str) -> Tensors:
    """A model of one tensor."""
    return {NAME: np.asarray(values, NUMPY_DTYPES[dtype])}


def linear(weights: list[float], *inputs: Array) -> Array:
    """A weighted sum."""
    return np.asarray(sum(weight * x for weight, x in zip(weights, inputs, strict=True)))


def slerp(t: float, a: Array, b: Array) -> Array:
    """Shoemake's formula, with the angle between the flattened tensors."""
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    angle = math.acos(np.clip(np.vdot(a, b) / norms, -1, 1)) if norms else 0.0
    if math.sin(angle) < 1e-12:
        return linear([1 - t, t], a, b)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def assert_nearest(found: NDArray[Any], values: Array) -> None:
    """No other value of its dtype is nearer to the reference.

    A thousandth of a unit is left to ties, and an epsilon to float64's own rounding.
    """
    assert found.shape == values.shape
    found, values = found.reshape(-1), values.reshape(-1)
    # The bit patterns of floats count them away from zero.
    bits = found.view(f"u{found.itemsize}")
    away = np.abs((bits + 1).astype(bits.dtype).view(found.dtype).astype(np.float64))
    here = np.abs(found.astype(np.float64))
    unit = np.where(np.isfinite(away), away - here, np.inf)
    error = np.abs(found.astype(np.float64) - values)
    assert np.all(error <= 0.501 * unit + 4 * np.finfo(np.float64).eps * (1 + here))


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
def test_result_is_the_float64_reference_rounded_once(
    expression: str, reference: Callable[[Array, Array], Array], dtype: str, tmp_path: Path
) -> None:
    a, b = odd_tensors(dtype=dtype, seed=1), odd_tensors(dtype=dtype, seed=2)
    found = merged(tmp_path, expression, a, b)
    assert found.keys() == a.keys()
    for name, tensor in a.items():
        assert found[name].dtype == NUMPY_DTYPES[dtype]
        assert_nearest(found[name], reference(*(x.astype(np.float64) for x in (tensor, b[name]))))


def test_nothing_in_between_is_rounded(tmp_path: Path) -> None:
    a, b = odd_tensors(dtype="BF16", seed=1), odd_tensors(dtype="BF16", seed=2)
    at_once = merged(
        tmp_path / "nested", "{slerp: {models: [{linear: {models: [a, b, a]}}, b], t: 0.3}}", a, b
    )
    average = merged(tmp_path / "first", "{linear: {models: [a, b, a]}}", a, b, dtype="F64")
    arc = "{slerp: {models: [a, b], t: 0.3}}"
    in_two_steps = merged(tmp_path / "second", arc, average, b, dtype="BF16")
    for name, tensor in at_once.items():
        assert tensor.tobytes() == in_two_steps[name].tobytes()


def every_value(dtype: str) -> NDArray[Any]:
    """Every bit pattern of the small dtypes, a million random ones of the large."""
    size = NUMPY_DTYPES[dtype].itemsize
    if size <= 2:
        return np.arange(1 << 8 * size).astype(f"u{size}").view(NUMPY_DTYPES[dtype])
    random = np.random.default_rng(size)
    bits = random.integers(0, 1 << 8 * size, 1 << 20, f"u{size}", endpoint=False)
    return bits.view(NUMPY_DTYPES[dtype])


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # signalling NaN
@pytest.mark.parametrize("wanted", TORCH_NAMES)
@pytest.mark.parametrize("dtype", TORCH_NAMES)
def test_conversion_of_every_value_is_the_nearest(dtype: str, wanted: str, tmp_path: Path) -> None:
    stored = every_value(dtype)
    values = stored.astype(np.float64)
    fits = np.isnan(values) | (np.abs(values) <= LARGEST[wanted])
    if wanted != "F8_E4M3":  # it has no infinities
        fits |= np.isinf(values)
    stored, values = stored[fits], values[fits]
    found = merged(tmp_path, "a", {NAME: stored}, dtype=wanted)[NAME]
    if dtype == wanted:
        assert found.tobytes() == stored.tobytes()
        return
    as_numbers = found.astype(np.float64)
    np.testing.assert_array_equal(np.isnan(as_numbers), np.isnan(values))
    np.testing.assert_array_equal(np.isinf(as_numbers), np.isinf(values))
    numbers = ~np.isnan(values)
    np.testing.assert_array_equal(np.signbit(as_numbers[numbers]), np.signbit(values[numbers]))
    finite = np.isfinite(values)
    assert_nearest(found[finite], values[finite])


TOO_LARGE = [
    ("F32", 65520.0, "F16", 65519.0, 65504.0),
    ("F32", 3.4e38, "BF16", 3.39e38, 3.3895313892515355e38),
    ("F64", 3.41e38, "F32", 3.4e38, np.float32(3.4e38)),
    ("F64", 1e300, "BF16", -1.0, -1.0),
    ("F16", 465.0, "F8_E4M3", 464.0, 448.0),
    ("F32", -61440.0, "F8_E5M2", -61439.0, -57344.0),
]
"""A dtype, a value of it that a smaller one cannot hold, and the next that it rounds to."""


@pytest.mark.parametrize(("dtype", "over", "wanted", "under", "rounded"), TOO_LARGE)
def test_number_that_does_not_fit_is_an_error_and_never_an_infinity(
    dtype: str,
    over: float,
    wanted: str,
    under: float,
    rounded: float,
    tmp_path: Path,
    refused: Refused,
    command: Command,
) -> None:
    path = write_recipe(tmp_path, "a", one([1, over, over], dtype), dtype=wanted)
    assert refused("apply", path, "-q", code=7) == (
        f"tensor '{NAME}': 2 values are too large for {wanted}\n"
        "  fix: choose a wider output: dtype\n"
    )
    path = write_recipe(tmp_path, "a", one([1, under], dtype), dtype=wanted)
    assert command("apply", path).code == 0
    assert read_tensors(tmp_path / "out")[NAME].tolist() == [1, rounded]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_sum_that_does_not_fit_is_an_error(dtype: str, tmp_path: Path, refused: Refused) -> None:
    model = one([1, LARGEST[dtype]], dtype)
    doubled = "{linear: {models: [a, b], weights: [1, 1], normalize: false}}"
    path = write_recipe(tmp_path, doubled, model, model)
    assert "1 values are too large" in refused("apply", path, "-q", code=7)


SPECIAL = [np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, -1.0]


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16", "F8_E5M2"])
def test_nan_infinity_and_negative_zero_add_up_as_they_do(dtype: str, tmp_path: Path) -> None:
    left, right = (np.array(x).reshape(-1) for x in np.meshgrid(SPECIAL, SPECIAL))
    a, b = one(left, dtype), one(right, dtype)
    found = merged(tmp_path, "{linear: {models: [a, b]}}", a, b)[NAME].astype(np.float64)
    with np.errstate(invalid="ignore"):
        expected = 0.5 * left + 0.5 * right
    np.testing.assert_array_equal(found, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(expected[numbers]))


@pytest.mark.parametrize("dtype", TORCH_NAMES)
@pytest.mark.parametrize(
    ("expression", "given_back"),
    [
        ("{slerp: {models: [a, b], t: 0}}", 0),
        ("{slerp: {models: [a, b], t: 1}}", 1),
        ("{linear: {models: [a, b], weights: [0, 3]}}", 1),
        ("{linear: {models: [a, a, a], weights: [0.1, 0.2, 0.3]}}", 0),
        ("{slerp: {models: [a, {stack: [{model: a}]}], t: 0.3}}", 0),
        ("{stack: [{model: a, layers: [0, 1]}]}", 0),
    ],
)
def test_what_gives_a_model_back_gives_it_back_bit_for_bit(
    expression: str, given_back: int, dtype: str, tmp_path: Path
) -> None:
    bits = np.random.default_rng(1).integers(0, 256, (2, 8000), np.uint8)
    models = [{NAME: each.view(NUMPY_DTYPES[dtype])} for each in bits]
    found = merged(tmp_path, expression, *models[: 2 if "b" in expression else 1])
    assert found[NAME].tobytes() == bits[given_back].tobytes()


NO_ARC = {
    "a zero": (np.zeros(1000), "an input is zero: interpolated linearly"),
    "an opposite": (-np.arange(1000.0), "the inputs are antiparallel: interpolated linearly"),
}


@pytest.mark.parametrize(("other", "note"), NO_ARC.values(), ids=NO_ARC)
def test_slerp_without_an_arc_is_linear_and_the_summary_says_so(
    other: Array, note: str, tmp_path: Path, command: Command
) -> None:
    values = np.arange(1000.0)
    both = {NAME: values, f"{NAME}2": values}, {NAME: other, f"{NAME}2": other}
    path = write_recipe(tmp_path, "{slerp: {models: [a, b], t: 0.25}}", *both)
    done = command("apply", path)
    assert done.code == 0
    assert done.err.endswith(f"note: {note} (2 tensors)\n")
    expected = 0.75 * values + 0.25 * other
    np.testing.assert_array_equal(read_tensors(tmp_path / "out")[NAME], expected)


def test_slerp_of_nearly_parallel_tensors_is_exact(tmp_path: Path) -> None:
    """Where acos sees no angle at all; there the arc is a straight line to the last digit."""
    a = np.random.default_rng(3).standard_normal(1000)
    b = a * (1 + 1e-9 * np.random.default_rng(4).standard_normal(1000))
    found = merged(tmp_path, "{slerp: {models: [a, b], t: 0.3}}", {NAME: a}, {NAME: b})[NAME]
    np.testing.assert_allclose(found, 0.7 * a + 0.3 * b, rtol=1e-14)
