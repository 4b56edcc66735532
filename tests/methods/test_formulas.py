"""Each method against its formula in float64, through the whole engine."""

import numpy as np
import pytest

from tensorsurgeon.specs import SPAN
from tests.methods import references
from tests.methods.cases import CASES, ONE_OF_EACH, Case
from tests.methods.folders import Workbench, in_layer, layer
from tests.methods.numerics import assert_rounded_once, float64, relative_error
from tests.methods.references import norm

SHAPES = {"matrix": (48, 64), "wide": (3, 130), "vector": (64,), "few": (7,), "row": (1, 5)}
LONG = {"above_a_span": (SPAN + 77,), "matrix": (130, 33)}

SCALES = {"close": 0.02, "far": 0.5}
"""Size of the task vectors, where the base's elements are of size 1."""


def precision(case: Case) -> float:
    """A sum is so flat at its least that float64 tells where it lies by half its digits."""
    return 1e-10 if "geometric_median" in case.expression else 5e-15


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_result_is_the_formula_to_the_last_digits_of_float64(
    case: Case, scale: float, bench: Workbench
) -> None:
    models = case.inputs(layer(SHAPES), scale)
    found = bench.merged(case.expression, models, dtype="F64")
    for name, tensor in found.items():
        assert relative_error(tensor, case.exact(models, name)) < precision(case), name


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_result_is_rounded_once(case: Case, dtype: str, bench: Workbench) -> None:
    models = case.inputs(layer(SHAPES, dtype=dtype), 0.1)
    for name, tensor in bench.merged(case.expression, models).items():
        assert_rounded_once(tensor, case.exact(models, name), precision(case))


@pytest.mark.parametrize("case", ONE_OF_EACH.values(), ids=ONE_OF_EACH)
def test_tensor_of_several_spans_is_the_formula(case: Case, bench: Workbench) -> None:
    models = case.inputs(layer(LONG, dtype="BF16"), 0.1)
    found = bench.merged(case.expression, models, dtype="F64")
    for name, tensor in found.items():
        assert relative_error(tensor, case.exact(models, name)) < precision(case), name


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_karcher_on_dot_products_takes_the_steps_it_takes_on_tensors(
    steps: int, bench: Workbench
) -> None:
    """However far it has come: directions that lie far apart are not found in a few steps."""
    vectors = [float64(x) for x in np.random.default_rng(1).standard_normal((4, 100, 50))]
    body = {"models": ["a", "b", "c", "d"], "max_iter": steps, "tol": 1e-15}
    models = {name: in_layer({"w": x}, "F64") for name, x in zip("abcd", vectors, strict=True)}
    (found,) = bench.merged({"karcher": body}, models).values()
    right = references.karcher(vectors, [1] * 4, steps=steps)
    assert norm(found - right) < 1e-15 * norm(right)
