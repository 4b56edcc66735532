"""Methods on single elements, selections and masks, on tensors of a real model and its fine-tunes.

Fine-tunes in bfloat16 differ from their base by few different numbers, so that ranks are full of
ties, and by so little that a divergence of rows in float32 is mostly rounding.
"""

from pathlib import Path

import numpy as np
import pytest

from tests.cli.checkpoints import NUMPY_DTYPES, Tensors
from tests.methods.cases import Case
from tests.methods.elementwise_cases import CASES, IN_MERGEKIT
from tests.methods.folders import Workbench, in_layer, stored, tuned
from tests.methods.numerics import (
    assert_rounded_once,
    error,
    float64,
    relative_error,
    units_apart,
)
from tests.methods.oracle import Oracle

LAYER = "model.layers.11"
NAMES = ("input_layernorm.weight", "self_attn.k_proj.weight", "self_attn.o_proj.weight")

WITHOUT_TIES = {name: case for name, case in IN_MERGEKIT.items() if "selected" not in name}
"""Of elements at the threshold torch's top-k takes any, here it is those that come first."""

IN_FLOAT32 = {name: case for name, case in WITHOUT_TIES.items() if case.method != "arcee_fusion"}


@pytest.fixture(scope="module")
def models(smollm2: Path, smollm2_tuned: Path) -> dict[str, Tensors]:
    """A base, a fine-tune by an optimiser, and three whose updates are random and sparse."""
    base, trained = (
        in_layer({name: stored(folder, f"{LAYER}.{name}") for name in NAMES}, "BF16")
        for folder in (smollm2, smollm2_tuned)
    )
    random = {f"m{i}": tuned(base, seed=i, scale=1e-3, density=0.4) for i in (2, 3, 4)}
    return {"base": base, "m1": trained, **random}


def of_case(case: Case, models: dict[str, Tensors], dtype: str = "BF16") -> dict[str, Tensors]:
    """As many of the models as it takes, in a dtype."""
    return {
        model: {name: values.astype(NUMPY_DTYPES[dtype]) for name, values in tensors.items()}
        for model, tensors in list(models.items())[: case.count + 1]
    }


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_result_is_the_formula_rounded_once(
    case: Case, models: dict[str, Tensors], bench: Workbench
) -> None:
    chosen = of_case(case, models)
    for name, tensor in bench.merged(case.expression, chosen).items():
        assert_rounded_once(tensor, case.exact(chosen, name), 1e-14)


@pytest.mark.parametrize("case", WITHOUT_TIES.values(), ids=WITHOUT_TIES)
def test_float32_agrees_with_mergekit_in_float64_to_a_millionth(
    case: Case, models: dict[str, Tensors], mergekit: Oracle, bench: Workbench
) -> None:
    chosen = of_case(case, models, "F32")
    theirs = mergekit.asked(case, chosen, compute="F64", written="F32")
    for name, tensor in bench.merged(case.expression, chosen).items():
        assert relative_error(tensor, float64(theirs[name])) < 1e-6, name


@pytest.mark.parametrize("case", IN_FLOAT32.values(), ids=IN_FLOAT32)
def test_bfloat16_agrees_with_mergekit_in_float32_to_a_unit_in_the_last_place(
    case: Case, models: dict[str, Tensors], mergekit: Oracle, bench: Workbench
) -> None:
    chosen = of_case(case, models)
    theirs = mergekit.asked(case, chosen, compute="F32", written="BF16")
    ours = bench.merged(case.expression, chosen)
    apart = np.concatenate([units_apart(ours[name], theirs[name]) for name in ours])
    assert np.mean(apart <= 1) >= 0.999


@pytest.mark.parametrize("case", IN_MERGEKIT.values(), ids=IN_MERGEKIT)
def test_result_is_at_least_as_near_to_the_formula_as_what_mergekit_does_unasked(
    case: Case, models: dict[str, Tensors], mergekit: Oracle, bench: Workbench
) -> None:
    chosen = of_case(case, models)
    theirs = mergekit.asked(case, chosen)
    for name, tensor in bench.merged(case.expression, chosen).items():
        exact = case.exact(chosen, name)
        assert error(tensor, exact) <= error(theirs[name], exact) * (1 + 1e-9), name
