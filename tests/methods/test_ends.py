"""What gives a model back gives it back, and what cannot be averaged falls back as it says."""

from typing import Any

import numpy as np
import pytest

from tensorsurgeon.plan import Stored
from tests.cli.checkpoints import NUMPY_DTYPES, Tensors
from tests.methods.cases import CASES, ONE_OF_EACH, Case
from tests.methods.folders import Workbench, in_layer, layer, tuned
from tests.methods.numerics import float64, relative_error, units_apart

SHAPES = {"matrix": (48, 64), "vector": (64,)}

IDEMPOTENT = {name: case for name, case in CASES.items() if case.idempotent}

GIVEN_BACK: dict[str, tuple[dict[str, Any], str]] = {
    "linear": ({"linear": {"models": ["a", "b"], "weights": [0, 2]}}, "b"),
    "task arithmetic without weights": (
        {"task_arithmetic": {"base": "a", "models": ["b"], "weights": [0]}},
        "a",
    ),
    "task arithmetic of one": ({"task_arithmetic": {"base": "a", "models": ["b"]}}, "b"),
    "task arithmetic times nothing": (
        {"task_arithmetic": {"base": "a", "models": ["b"], "lambda": 0}},
        "a",
    ),
    "no difference added": (
        {"add_difference": {"model": "a", "plus": "b", "minus": "c", "alpha": 0}},
        "a",
    ),
    "slerp at 0": ({"slerp": {"models": ["a", "b"], "t": 0}}, "a"),
    "slerp at 1": ({"slerp": {"models": ["a", "b"], "t": 1}}, "b"),
    "nuslerp": ({"nuslerp": {"models": ["a", "b"], "weights": [0, 0.3]}}, "b"),
    "nuslerp of task vectors": (
        {"nuslerp": {"models": ["a", "b"], "weights": [2, 0], "base": "c"}},
        "a",
    ),
    "multislerp": ({"multislerp": {"models": ["a", "b", "c"], "weights": [0, 3, 0]}}, "b"),
    "multislerp of one task vector": ({"multislerp": {"models": ["b"], "base": "a"}}, "b"),
    "karcher": ({"karcher": {"models": ["a", "b"], "weights": [0.2, 0]}}, "a"),
    "geometric median": ({"geometric_median": {"models": ["a", "b"], "weights": [0, 7]}}, "b"),
    "the same twice": ({"karcher": {"models": ["a", "a"], "weights": [2, 3]}}, "a"),
}


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F8_E5M2"])
@pytest.mark.parametrize(("expression", "given_back"), GIVEN_BACK.values(), ids=GIVEN_BACK)
def test_model_comes_back_bit_for_bit_and_uncomputed(
    expression: dict[str, Any], given_back: str, dtype: str, bench: Workbench
) -> None:
    """Whatever its bits are: NaN and infinities among them."""
    bits = np.random.default_rng(1).integers(0, 256, (3, 8000), np.uint8)
    models = {
        name: {"model.layers.0.w": each.view(NUMPY_DTYPES[dtype])}
        for name, each in zip("abc", bits, strict=True)
    }
    plan = bench.planned(expression, models)
    assert all(isinstance(tensor.node, Stored) for tensor in plan.tensors)
    (found,) = bench.merged(expression, models).values()
    assert found.tobytes() == models[given_back]["model.layers.0.w"].tobytes()


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("case", IDEMPOTENT.values(), ids=IDEMPOTENT)
def test_models_that_were_not_changed_give_the_base_bit_for_bit(
    case: Case, dtype: str, bench: Workbench
) -> None:
    """In folders of their own, so that nobody knows they are the same."""
    base = layer(SHAPES, dtype=dtype)
    found = bench.merged(
        case.expression, dict.fromkeys(["base", *["m1", "m2", "m3", "m4", "m5"]], base)
    )
    for name, tensor in found.items():
        assert tensor.tobytes() == base[name].tobytes()


@pytest.mark.parametrize("power", [-100, 100])
@pytest.mark.parametrize("case", ONE_OF_EACH.values(), ids=ONE_OF_EACH)
def test_very_small_and_very_large_tensors_are_merged_as_all_others(
    case: Case, power: int, bench: Workbench
) -> None:
    """To the bit: their squares are far from what a float32 holds, at 1e-60 or 1e60."""
    models = case.inputs(layer(SHAPES), 0.1)
    factor = np.float32(2.0**power)
    far = {
        model: {name: factor * values for name, values in tensors.items()}
        for model, tensors in models.items()
    }
    found = bench.merged(case.expression, far)
    for name, tensor in bench.merged(case.expression, models).items():
        assert (factor * tensor).tobytes() == found[name].tobytes()


BETWEEN: dict[str, dict[str, Any]] = {
    "slerp": {"slerp": {"models": ["a", "b"], "t": 0.3}},
    "nuslerp": {"nuslerp": {"models": ["a", "b"], "weights": [1, 2]}},
    "multislerp": {"multislerp": {"models": ["a", "b"]}},
    "karcher": {"karcher": {"models": ["a", "b"]}},
    "geometric median": {"geometric_median": {"models": ["a", "b"]}},
}


@pytest.mark.parametrize("expression", BETWEEN.values(), ids=BETWEEN)
def test_between_neighbours_in_the_last_place_there_is_nothing(
    expression: dict[str, Any], bench: Workbench
) -> None:
    """The angle is 1e-8, which float64 dot products do not see."""
    a = layer(SHAPES)
    b = {name: np.nextafter(values, np.float32(np.inf)) for name, values in a.items()}
    for name, tensor in bench.merged(expression, {"a": a, "b": b}).items():
        assert units_apart(tensor, a[name]).max() <= 1
        assert units_apart(tensor, b[name]).max() <= 1


def lines(*rows: float) -> dict[str, Tensors]:
    """Models `m1`, `m2`, … that are multiples of one vector; the base is zero."""
    values = np.arange(1.0, 101.0)
    models = {f"m{i}": in_layer({"w": row * values}, "F64") for i, row in enumerate(rows, 1)}
    return {"base": in_layer({"w": 0 * values}, "F64"), **models}


FALL_BACKS: dict[str, tuple[dict[str, Any], tuple[float, ...], float, str]] = {
    "slerp with a zero": (
        {"slerp": {"models": ["m1", "m2"], "t": 0.25}},
        (1, 0),
        0.75,
        "an input is zero: interpolated linearly",
    ),
    "slerp of opposites": (
        {"slerp": {"models": ["m1", "m2"], "t": 0.25}},
        (1, -3),
        0,
        "the inputs are antiparallel: interpolated linearly",
    ),
    "nuslerp of opposite task vectors": (
        {"nuslerp": {"models": ["m1", "m2"], "weights": [3, 1], "base": "base"}},
        (1, -1),
        0.5,
        "the inputs are antiparallel: interpolated linearly",
    ),
    "multislerp of opposites": (
        {"multislerp": {"models": ["m1", "m2"]}},
        (1, -2),
        -0.5,
        "the inputs cancel out: averaged linearly",
    ),
    "karcher of opposites": (
        {"karcher": {"models": ["m1", "m2"]}},
        (1, -2),
        1.5,
        "the inputs cancel out: the mean was sought from the first one",
    ),
    "model stock of opposites": (
        {"model_stock": {"models": ["m1", "m2"], "base": "base"}},
        (1, -2),
        0,
        "the models oppose each other: the base is kept",
    ),
    "model stock of three, one opposed": (
        {"model_stock": {"models": ["m1", "m2", "m3"], "base": "base"}},
        (1, 2, -3),
        0,
        "the models oppose each other: gone past the base, away from their mean",
    ),
    "multislerp with a zero": ({"multislerp": {"models": ["m1", "m2"]}}, (1, 0), 0.5, ""),
    "karcher with a zero": ({"karcher": {"models": ["m1", "m2", "m3"]}}, (1, 0, 2), 1, ""),
}


@pytest.mark.parametrize(
    ("expression", "rows", "expected", "note"), FALL_BACKS.values(), ids=FALL_BACKS
)
def test_what_has_no_direction_falls_back_and_the_run_says_so(
    expression: dict[str, Any],
    rows: tuple[float, ...],
    expected: float,
    note: str,
    bench: Workbench,
) -> None:
    models = lines(*rows)
    (found,) = bench.merged(expression, models).values()
    np.testing.assert_allclose(found, expected * np.arange(1.0, 101.0), rtol=1e-12, atol=1e-12)
    assert bench.notes(expression, models) == ((f"{note} (1 tensors)",) if note else ())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_all_zero_is_zero_and_nothing_to_speak_of(case: Case, bench: Workbench) -> None:
    zeros = in_layer({"w": np.zeros(100)})
    models = dict.fromkeys(["base", *["m1", "m2", "m3", "m4", "m5"]], zeros)
    assert bench.notes(case.expression, models) == ()
    (found,) = bench.merged(case.expression, models).values()
    assert not found.any()


def test_karcher_with_zeros_comes_as_far_as_without_them(bench: Workbench) -> None:
    """Zero tensors have no direction, and must not make the steps of the others shorter."""
    random = np.random.default_rng(5)
    models = {name: in_layer({"w": random.standard_normal(1000)}, "F64") for name in "abc"}
    zeros = {name: in_layer({"w": np.zeros(1000)}, "F64") for name in "xyz"}
    expression = {"karcher": {"models": [*"abcxyz"], "tol": 1e-6}}
    assert bench.notes(expression, models | zeros) == ()
    (found,) = bench.merged(expression, models | zeros).values()
    (without,) = bench.merged({"karcher": {"models": [*"abc"], "tol": 1e-6}}, models).values()
    assert relative_error(2 * found, float64(without)) < 1e-12


@pytest.mark.parametrize(
    ("method", "note"),
    [
        ("karcher", "the mean was not found to 1e-09 in 2 steps (1 tensors)"),
        ("geometric_median", "the median was not found in 2 steps (1 tensors)"),
    ],
)
def test_iteration_that_is_cut_short_says_so(method: str, note: str, bench: Workbench) -> None:
    models = {
        name: in_layer({"w": np.random.default_rng(seed).standard_normal(100)})
        for seed, name in enumerate("abc")
    }
    body = {"models": [*"abc"], "tol": 1e-9, "max_iter": 2}
    assert bench.notes({method: body}, models) == (note,)


def test_multislerp_of_exact_opposites_always_falls_back(bench: Workbench) -> None:
    """Whatever is left of them by rounding: it has no direction, and would be blown up."""
    for seed in range(20):
        values = np.random.default_rng(seed).standard_normal(50)
        models = {"a": in_layer({"w": values}, "F64"), "b": in_layer({"w": -4 * values}, "F64")}
        (found,) = bench.merged({"multislerp": {"models": ["a", "b"]}}, models).values()
        assert relative_error(found, -1.5 * values) < 1e-12


def test_model_stock_of_small_task_vectors_goes_by_their_angle(bench: Workbench) -> None:
    """mergekit takes a product of norms below 1e-6 for 1e-6, and so the angle for a right one."""
    base = in_layer({"norm": np.ones(64)}, "F64")
    models = {"base": base, **{f"m{i}": tuned(base, seed=i, scale=1e-6) for i in (1, 2)}}
    case = CASES["model stock of two"]
    (found,) = bench.merged(case.expression, models).values()
    (name,) = base
    exact = case.exact(models, name)
    assert np.abs(found - exact).max() < 1e-9 * np.abs(exact - base[name]).max()
