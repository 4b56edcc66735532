"""A second opinion: mergekit's merge of the same tensors."""

import numpy as np
import pytest

from tests.methods.cases import IN_MERGEKIT, Case
from tests.methods.folders import Workbench, layer
from tests.methods.numerics import error, float64, relative_error, units_apart
from tests.methods.oracle import Oracle

SHAPES = {"matrix": (48, 64), "wide": (3, 130), "vector": (64,), "few": (7,), "row": (1, 5)}

METHODS = pytest.mark.parametrize("case", IN_MERGEKIT.values(), ids=IN_MERGEKIT)


@METHODS
def test_float32_agrees_to_a_millionth(case: Case, mergekit: Oracle, bench: Workbench) -> None:
    models = case.inputs(layer(SHAPES), 0.5)
    theirs = mergekit.asked(case, models)
    for name, tensor in bench.merged(case.expression, models).items():
        assert tensor.dtype == theirs[name].dtype
        assert relative_error(tensor, float64(theirs[name])) < 1e-6, name


@METHODS
def test_bfloat16_computed_in_float32_agrees_to_a_unit_in_the_last_place(
    case: Case, mergekit: Oracle, bench: Workbench
) -> None:
    """Of 99.9% of the elements, where mergekit computes in float32, by itself or when asked to."""
    models = case.inputs(layer(SHAPES, dtype="BF16"), 0.5)
    compute, written = (None, None) if case.in_float32 else ("F32", "BF16")
    theirs = mergekit.asked(case, models, compute=compute, written=written)
    ours = bench.merged(case.expression, models)
    apart = np.concatenate([units_apart(ours[name], theirs[name]) for name in ours])
    assert np.mean(apart <= 1) >= 0.999


@pytest.mark.parametrize(
    "case",
    [case for case in IN_MERGEKIT.values() if not case.in_float32],
    ids=[name for name, case in IN_MERGEKIT.items() if not case.in_float32],
)
def test_bfloat16_is_nearer_to_the_formula_than_what_is_computed_in_bfloat16(
    case: Case, mergekit: Oracle, bench: Workbench
) -> None:
    models = case.inputs(layer(SHAPES, dtype="BF16"), 0.5)
    theirs = mergekit.asked(case, models)
    for name, tensor in bench.merged(case.expression, models).items():
        exact = case.exact(models, name)
        assert tensor.dtype == theirs[name].dtype
        assert error(tensor, exact) <= error(theirs[name], exact), name
        assert relative_error(tensor, exact) <= relative_error(theirs[name], exact), name
