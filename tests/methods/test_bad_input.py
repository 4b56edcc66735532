"""Mistakes in a method's parameters and models: told before anything is written, with the fix."""

from typing import Any

import numpy as np
import pytest

from tensorsurgeon import api
from tensorsurgeon.errors import ArchitectureError, CheckpointError, OutputError, RecipeError
from tests.cli.checkpoints import Tensors
from tests.methods.folders import Workbench, in_layer, layer

MODELS = {name: layer({"w": (4, 8)}, seed=seed) for seed, name in enumerate("abcd")}

TUNED = {"base": "a", "models": ["b", "c"]}
TWO = {"models": ["a", "b"]}
ZERO = "sum to zero and cannot be normalized"

RECIPES: dict[str, tuple[dict[str, Any], str, str]] = {
    "weights for others": (
        {"task_arithmetic": TUNED | {"weights": [1, 2, 3]}},
        "'task_arithmetic': there are 2 models and 3 weights",
        "",
    ),
    "a weight too few": (
        {"karcher": {"models": ["a", "b", "c"], "weights": [1, 2]}},
        "'karcher': there are 3 models and 2 weights",
        "",
    ),
    "model stock of one": (
        {"model_stock": {"models": ["b"], "base": "a"}},
        "'model_stock': models: takes at least 2, not 1",
        "",
    ),
    "model stock without a base": (
        {"model_stock": {"models": ["b", "c"]}},
        "'model_stock' needs 'base'",
        "known: models, base",
    ),
    "nuslerp of three": (
        {"nuslerp": {"models": ["a", "b", "c"]}},
        "'nuslerp': models: takes at most 2, not 3",
        "",
    ),
    "a median of one": (
        {"geometric_median": {"models": ["a"]}},
        "'geometric_median': models: takes at least 2, not 1",
        "",
    ),
    "zero-sum task vectors": (
        {"task_arithmetic": TUNED | {"weights": [0.4, -0.4], "normalize": True}},
        f"'task_arithmetic': weights 0.4, -0.4 {ZERO}",
        "change a weight, or set 'normalize: false'",
    ),
    "zero-sum but for the rounding of decimals": (
        {"linear": {"models": ["a", "b", "c"], "weights": [0.1, 0.2, -0.3]}},
        f"'linear': weights 0.1, 0.2, -0.3 {ZERO}",
        "change a weight, or set 'normalize: false'",
    ),
    "zero-sum directions": (
        {"multislerp": TWO | {"weights": [1, -1]}},
        f"'multislerp': weights 1, -1 {ZERO}",
        "change a weight, or set 'normalize: false'",
    ),
    "zero-sum directions at the last layer": (
        {"multislerp": TWO | {"weights": [1, [-1, -1]]}},
        f"'multislerp': weights 1, -1 {ZERO}",
        "change a weight, or set 'normalize: false'",
    ),
    "a zero-sum mean": (
        {"karcher": TWO | {"weights": [2, -2]}},
        f"'karcher': weights 2, -2 {ZERO}",
        "change a weight",
    ),
    "a median of nothing": (
        {"geometric_median": TWO | {"weights": [0, 0]}},
        f"'geometric_median': weights 0, 0 {ZERO}",
        "change a weight",
    ),
    "a negative distance": (
        {"geometric_median": TWO | {"weights": [3, -0.5]}},
        "'geometric_median': weights 3, -0.5: distances have no negative weights",
        "give each model a weight of 0 or more",
    ),
    "weights beyond all numbers": (
        {"linear": TWO | {"weights": [1e308, 1e308]}},
        "'linear': weights 1e+308, 1e+308 are too large to be summed",
        "divide all of them by the same number",
    ),
    "no steps": (
        {"karcher": TWO | {"max_iter": 0}},
        "'karcher': max_iter",
        "",
    ),
    "half a step": (
        {"geometric_median": TWO | {"max_iter": 2.5}},
        "'geometric_median': max_iter",
        "",
    ),
    "no tolerance": (
        {"karcher": TWO | {"tol": 0}},
        "'karcher': tol",
        "",
    ),
    "a tolerance that is no number": (
        {"geometric_median": TWO | {"tol": True}},
        "'geometric_median': tol",
        "",
    ),
    "a parameter of another method": (
        {"task_arithmetic": TUNED | {"density": 0.5}},
        "'task_arithmetic' has no parameter 'density'",
        "known: base, lambda, models, normalize, weights",
    ),
}


@pytest.mark.parametrize(("expression", "what", "fix"), RECIPES.values(), ids=RECIPES)
def test_parameters_that_make_no_sense_are_refused_by_the_plan(
    expression: dict[str, Any], what: str, fix: str, bench: Workbench
) -> None:
    file = bench.recipe(expression, MODELS)
    with pytest.raises(RecipeError) as refused:
        api.plan(file)
    (problem,) = refused.value.problems
    assert problem.where.startswith(f"{file}:1:")
    assert problem.what.startswith(what)
    assert problem.fix.startswith(fix)


METHODS: dict[str, dict[str, Any]] = {
    "linear": {"linear": {"models": ["a", "b", "c"]}},
    "task_arithmetic": {"task_arithmetic": TUNED},
    "add_difference": {"add_difference": {"model": "a", "plus": "b", "minus": "c"}},
    "slerp": {"slerp": {"models": ["a", "c"], "t": 0.5}},
    "nuslerp": {"nuslerp": {"models": ["a", "b"], "base": "c"}},
    "multislerp": {"multislerp": {"models": ["a", "b", "c"]}},
    "karcher": {"karcher": {"models": ["a", "b", "c"]}},
    "geometric_median": {"geometric_median": {"models": ["a", "b", "c"]}},
    "model_stock": {"model_stock": {"models": ["b", "c"], "base": "a"}},
}


@pytest.mark.parametrize("expression", METHODS.values(), ids=METHODS)
def test_models_of_other_shapes_are_refused_by_the_plan(
    expression: dict[str, Any], bench: Workbench
) -> None:
    other = MODELS | {"c": layer({"w": (8, 4)})}
    with pytest.raises(ArchitectureError, match=r"tensor 'model\.layers\.0\.w' is "):
        bench.planned(expression, other)


GO_BY_THE_TENSORS = {
    name: METHODS[name]
    for name in ("slerp", "nuslerp", "multislerp", "karcher", "geometric_median", "model_stock")
}


def with_one(value: float) -> Tensors:
    """A model with a single such element."""
    values = np.ones((4, 8))
    values[2, 3] = value
    return in_layer({"w": values})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("expression", GO_BY_THE_TENSORS.values(), ids=GO_BY_THE_TENSORS)
def test_input_that_is_not_finite_is_refused_by_its_name(
    expression: dict[str, Any], value: float, bench: Workbench
) -> None:
    with pytest.raises(CheckpointError) as refused:
        bench.merged(expression, MODELS | {"c": with_one(value)})
    (problem,) = refused.value.problems
    assert problem.where == "tensor 'model.layers.0.w'"
    kind = "NaN" if np.isnan(value) else "infinite value"
    assert problem.what.startswith(f"c:model.layers.0.w has 1 {kind}, so that ")


@pytest.mark.parametrize(
    "expression",
    [
        {"task_arithmetic": TUNED | {"lambda": 1e6}},
        {"multislerp": TUNED | {"weights": [1e6, 1e6], "normalize": False}},
        {"add_difference": {"model": "a", "plus": "b", "minus": "c", "alpha": -1e6}},
    ],
    ids=["task_arithmetic", "multislerp", "add_difference"],
)
def test_float16_that_overflows_is_refused_and_never_an_infinity(
    expression: dict[str, Any], bench: Workbench
) -> None:
    models = {name: layer({"w": (4, 8)}, dtype="F16", seed=seed) for seed, name in enumerate("abc")}
    with pytest.raises(OutputError, match="too large for F16"):
        bench.merged(expression, models)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "della"])
def test_weights_beyond_float64_are_refused(method: str, bench: Workbench) -> None:
    models = {name: layer({"m": (4, 4)}, seed=seed) for seed, name in enumerate(("base", "a", "b"))}
    body = {method: {"base": "base", "models": ["a", "b"], "weights": [1e308, 1e308]}}
    with pytest.raises(RecipeError, match="too large to be summed"):
        bench.merged(body, models)
