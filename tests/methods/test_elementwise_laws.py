"""What holds for methods on single elements, selections and masks whatever they are given."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorsurgeon.errors import ArchitectureError, RecipeError
from tensorsurgeon.operators import (
    ArceeFusion,
    Consensus,
    Emr,
    Magmax,
    Nearswap,
    Ram,
    RamplusTl,
    Sce,
    StreamedOperator,
)
from tests.methods import elementwise_references as references
from tests.methods.folders import Workbench, in_layer, layer, tuned
from tests.methods.laws import seeds
from tests.methods.references import Float64
from tests.methods.streamed import PLACE, based, merged

PARAMETERS: dict[type[StreamedOperator], dict[str, Any]] = {
    Nearswap: {"t": 0.3},
    Magmax: {"lambda": 0.7},
    Emr: {"lambda": 0.7},
    Ram: {"epsilon": 0.2},
    RamplusTl: {"epsilon": 0.2, "r": 0.5, "alpha": 2.0},
    Consensus: {"k": 2, "mask_lambda": 0.5, "alpha": 0.8},
    Sce: {"select_topk": 0.5},
    ArceeFusion: {},
}
OF_TWO = (Nearswap, ArceeFusion)
"""Take a base and one model."""

OF_MANY = tuple(kind for kind in PARAMETERS if kind not in OF_TWO)


@st.composite
def models(draw: st.DrawFn, least: int = 2, most: int = 5) -> list[Float64]:
    """A base and models of one shape: of few different numbers, so that there are ties, or many."""
    random = np.random.default_rng(draw(seeds))
    count = draw(st.integers(least, most)) + 1
    shape = draw(st.sampled_from([(), (1,), (7,), (3, 5), (4, 1), (2, 3, 4), (0, 3), (40, 30)]))
    if draw(st.booleans()):
        return list(random.integers(-3, 4, (count, *shape)) / 4)
    return list(random.standard_normal((count, *shape)))


@pytest.mark.parametrize("kind", OF_MANY)
@given(given=models(), data=st.data())
def test_order_of_the_models_does_not_matter(
    kind: type[StreamedOperator], given: list[Float64], data: st.DataObject
) -> None:
    base, *others = given
    order = data.draw(st.permutations(range(len(others))))
    operator = based(kind, len(others), **PARAMETERS[kind])
    found = merged(operator, base, *(others[i] for i in order))
    right = merged(operator, base, *others)
    if kind is Magmax:  # of equal magnitudes it takes the first
        deltas = np.sort(np.abs([model - base for model in others]), axis=0)
        tied = deltas[-1] == deltas[-2]
        found, right = np.where(tied, base, found), np.where(tied, base, right)
    assert np.allclose(found, right, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", PARAMETERS)
@given(given=models(), zeros=st.sampled_from([0.0, -0.0]))
def test_models_like_the_base_give_its_bits(
    kind: type[StreamedOperator], given: list[Float64], zeros: float
) -> None:
    base = np.where(given[0] > 0.5, zeros, given[0])
    count = 1 if kind in OF_TWO else len(given) - 1
    found = merged(based(kind, count, **PARAMETERS[kind]), base, *[base.copy()] * count)
    assert found.tobytes() == base.tobytes()


@pytest.mark.parametrize("kind", [Nearswap, Magmax, Emr, Ram, RamplusTl, Consensus])
@given(given=models(), power=st.integers(-20, 20))
def test_scaled_models_give_the_scaled_result(
    kind: type[StreamedOperator], given: list[Float64], power: int
) -> None:
    """With it go the parameters that are as large as elements."""
    factor = 2.0**power
    given = given[:2] if kind in OF_TWO else given
    here = PARAMETERS[kind]
    there = {key: v * factor if key in ("t", "epsilon") else v for key, v in here.items()}
    found = merged(based(kind, len(given) - 1, **there), *(factor * tensor for tensor in given))
    right = merged(based(kind, len(given) - 1, **here), *given)
    assert np.array_equal(found, factor * right)


@given(given=models(1, 1), t=st.floats(0, 3))
def test_nearswap_moves_by_t_at_most_and_never_past_the_model(
    given: list[Float64], t: float
) -> None:
    base, model = given
    found = merged(based(Nearswap, 1, t=t), base, model)
    assert np.all(np.abs(found - base) <= t + 1e-15)
    assert np.all((np.minimum(base, model) <= found) & (found <= np.maximum(base, model)))
    assert np.array_equal(found[np.abs(model - base) < t], model[np.abs(model - base) < t])


@given(given=models(1, 1))
def test_one_model_alone_is_the_result(given: list[Float64]) -> None:
    base, model = given
    for kind, parameters in ((Magmax, {}), (Emr, {}), (Ram, {"epsilon": 0}), (Sce, {})):
        found = merged(based(kind, 1, **parameters), base, model)
        assert np.allclose(found, model, rtol=0, atol=1e-15), kind


@given(given=models())
def test_consensus_of_no_masks_is_task_arithmetic(given: list[Float64]) -> None:
    base, *others = given
    found = merged(based(Consensus, len(others), k=0), base, *others)
    assert np.allclose(found, base + sum(model - base for model in others), rtol=0, atol=1e-14)


@given(given=models())
def test_ramplus_without_r_is_ram(given: list[Float64]) -> None:
    count = len(given) - 1
    plain = merged(based(Ram, count, epsilon=0.2), *given)
    assert np.array_equal(merged(based(RamplusTl, count, epsilon=0.2, r=0), *given), plain)


@given(given=models(), topk=st.floats(0.01, 1))
def test_sce_changes_as_many_elements_as_it_selects(given: list[Float64], topk: float) -> None:
    """As far as their differences from the base do not cancel out."""
    base, *others = given
    found = merged(based(Sce, len(others), select_topk=topk), base, *others)
    if topk < 1:
        spread = np.std([model - base for model in others], axis=0)
        assert np.count_nonzero(found != base) <= int(np.count_nonzero(spread > 1e-9) * topk)
    right = references.sce(base, others, select_topk=topk)
    assert np.allclose(found, right, rtol=0, atol=1e-13)


@given(seed=seeds, size=st.floats(-12, -3))
def test_arcee_fusion_ranks_small_differences_as_large_ones(seed: int, size: float) -> None:
    """Where a divergence summed from p log(p / q) is mostly rounding, down to 1e-12."""
    random = np.random.default_rng(seed)
    base = random.standard_normal((20, 50)) * 0.02
    change = random.standard_normal(base.shape)
    taken = [
        merged(based(ArceeFusion, 1), base, base + scale * change) != base
        for scale in (10**size, 1e-3)
    ]
    assert np.mean(taken[0] != taken[1]) < 0.01


@pytest.mark.parametrize("kind", PARAMETERS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_stops_nothing(kind: type[StreamedOperator], value: float) -> None:
    """The engine tells of it; a method only has to come to an end."""
    random = np.random.default_rng(0)
    count = 1 if kind in OF_TWO else 3
    tensors = [random.standard_normal((30, 40)) for _ in range(count + 1)]
    tensors[1][3, 4] = value
    merged(based(kind, count, **PARAMETERS[kind]), *tensors)


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [*PARAMETERS.items(), (Sce, {"select_topk": 1}), (RamplusTl, {"r": 0})],
)
def test_inputs_are_read_as_often_as_the_plan_says(
    kind: type[StreamedOperator], parameters: dict[str, Any]
) -> None:
    count = 1 if kind in OF_TWO else 2
    operator = based(kind, count, **parameters)
    tensors = list(np.random.default_rng(0).standard_normal((count + 1, 600, 700)))
    read: list[int] = []
    merged(operator, *tensors, told=read.append)
    times = operator.times_read(**dict(operator.parameters_at(PLACE)))
    assert sum(read) == times * (count + 1) * 600 * 700


BAD = {
    "t is below 0": ({"nearswap": {"model": "m1", "t": -1}}, "-1 is outside 0 to inf"),
    "nearswap of two": ({"nearswap": {"models": ["m1"], "t": 1}}, "no parameter 'models'"),
    "no t": ({"nearswap": {"model": "m1"}}, "'t'"),
    "topk above 1": ({"sce": {"models": ["m1"], "select_topk": 1.5}}, "1.5 is outside 0 to 1"),
    "no models": ({"magmax": {"models": []}}, "models"),
    "epsilon below 0": ({"ram": {"models": ["m1"], "epsilon": -1}}, "-1 is outside 0 to inf"),
    "consensus of one": ({"consensus": {"models": ["m1"]}}, "models"),
    "more masks than models": (
        {"consensus": {"models": ["m1", "m2"], "k": 3}},
        "k is 3 and there are 2 models",
    ),
    "a limit too many": (
        {"consensus": {"models": ["m1", "m2"], "mask_lambda": {"each": [0.2, 0.3, 0.4]}}},
        "there are 2 models and 3 values of mask_lambda",
    ),
    "a scale that is text": ({"emr": {"models": ["m1"], "lambda": "much"}}, "a number"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_makes_no_sense_is_refused_and_named(case: str, bench: Workbench) -> None:
    expression, message = BAD[case]
    ((method, body),) = expression.items()
    base = layer({"matrix": (4, 5)})
    given = {"base": base, "m1": tuned(base, seed=1), "m2": tuned(base, seed=2)}
    with pytest.raises(RecipeError, match=message):
        bench.planned({method: {"base": "base", **body}}, given)


@pytest.mark.parametrize("kind", PARAMETERS)
def test_models_of_another_shape_are_refused(
    kind: type[StreamedOperator], bench: Workbench
) -> None:
    one = {"model": "m1"} if kind in OF_TWO else {"models": ["m1", "m1"]}
    given = {name: in_layer({"w": np.zeros((4, n))}) for name, n in (("base", 5), ("m1", 6))}
    expression = {kind.operator: {"base": "base", **one, **PARAMETERS[kind]}}
    with pytest.raises(ArchitectureError, match=r"\[4, 5\].*\[4, 6\]"):
        bench.planned(expression, given)
