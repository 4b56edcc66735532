"""Methods on single elements, selections and masks: their formulas, mergekit's, and their bytes."""

import numpy as np
import pytest

from tensorsurgeon.plan import Stored
from tests.cli.checkpoints import Tensors
from tests.methods.cases import Case
from tests.methods.elementwise_cases import CASES, IN_MERGEKIT, ONE_OF_EACH
from tests.methods.folders import Workbench, in_layer, layer, tuned
from tests.methods.numerics import assert_rounded_once, float64, relative_error
from tests.methods.oracle import Oracle

SHAPES = {"matrix": (48, 64), "wide": (3, 130), "vector": (64,), "few": (7,), "row": (1, 5)}
LARGE = {"matrix": (600, 700), "vector": (300_000,), "cube": (3, 200, 500)}
"""More than one span each, of which none is whole rows."""

METHODS = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
EACH = pytest.mark.parametrize("case", ONE_OF_EACH.values(), ids=ONE_OF_EACH)


def models_of(
    case: Case, dtype: str, shapes: dict[str, tuple[int, ...]] = SHAPES, scale: float = 0.1
) -> dict[str, Tensors]:
    """A base and models whose task vectors are zero in part, some where others are not."""
    base = layer(shapes, dtype=dtype)
    others = {
        f"m{i}": tuned(base, seed=i, scale=scale, density=0.8, shared=None)
        for i in range(1, case.count + 1)
    }
    return {"base": base, **others}


@METHODS
@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_result_is_the_formula(case: Case, dtype: str, bench: Workbench) -> None:
    models = models_of(case, dtype)
    found = bench.merged(case.expression, models, dtype="F64")
    for name, tensor in found.items():
        assert relative_error(tensor, case.exact(models, name)) < 1e-14, name


@EACH
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_tensor_of_several_spans_is_the_formula(case: Case, dtype: str, bench: Workbench) -> None:
    models = models_of(case, dtype, LARGE)
    found = bench.merged(case.expression, models, dtype="F64")
    for name, tensor in found.items():
        assert relative_error(tensor, case.exact(models, name)) < 1e-14, name


@METHODS
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_result_is_rounded_once(case: Case, dtype: str, bench: Workbench) -> None:
    models = models_of(case, dtype)
    for name, tensor in bench.merged(case.expression, models).items():
        assert_rounded_once(tensor, case.exact(models, name), 1e-14)


@pytest.mark.parametrize("case", IN_MERGEKIT.values(), ids=IN_MERGEKIT)
def test_float32_agrees_with_mergekit_to_a_millionth(
    case: Case, bench: Workbench, mergekit: Oracle
) -> None:
    models = models_of(case, "F32", scale=0.5)
    theirs = mergekit.asked(case, models)
    for name, tensor in bench.merged(case.expression, models).items():
        assert relative_error(tensor, float64(theirs[name])) < 1e-6, name


@EACH
def test_bytes_are_the_same_for_any_number_of_threads(case: Case, bench: Workbench) -> None:
    models = models_of(case, "BF16", LARGE)
    alone, both = (bench.merged(case.expression, models, threads=count) for count in (1, 2))
    assert {name: x.tobytes() for name, x in alone.items()} == {
        name: x.tobytes() for name, x in both.items()
    }


@EACH
def test_models_that_did_not_change_give_the_base(case: Case, bench: Workbench) -> None:
    """In files of their own, so that nobody knows before; down to the sign of a zero."""
    base = layer(SHAPES, dtype="BF16")
    for tensor in base.values():
        tensor.reshape(-1)[:2] = (-0.0, 0.0)
    models = {"base": base, **{f"m{i}": dict(base) for i in range(1, case.count + 1)}}
    found = bench.merged(case.expression, models)
    assert {name: x.tobytes() for name, x in found.items()} == {
        name: x.tobytes() for name, x in base.items()
    }


def test_nearswap_of_more_than_all_differences_is_the_model(bench: Workbench) -> None:
    models = models_of(CASES["nearswap of much"], "F64")
    found = bench.merged({"nearswap": {"base": "base", "model": "m1", "t": 100}}, models)
    assert all(np.array_equal(tensor, models["m1"][name]) for name, tensor in found.items())


@pytest.mark.parametrize(
    "body",
    [
        {"nearswap": {"model": "m1", "t": 0}},
        {"magmax": {"models": ["m1", "m2"], "lambda": 0}},
        {"emr": {"models": ["m1", "m2"], "lambda": 0}},
        {"consensus": {"models": ["m1", "m2"], "alpha": 0}},
        {"consensus": {"models": ["m1", "m2"], "weights": [0, 0]}},
        {"sce": {"models": ["m1", "m2"], "select_topk": 0}},
    ],
    ids=str,
)
def test_nothing_added_is_a_copy_of_the_base(body: dict[str, dict], bench: Workbench) -> None:
    ((method, parameters),) = body.items()
    models = models_of(CASES["emr of two"], "BF16")
    plan = bench.planned({method: {"base": "base", **parameters}}, models)
    assert all(isinstance(t.node, Stored) and t.node.source == "base" for t in plan.tensors)


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_passthrough_scales_what_its_rules_name_and_copies_the_rest(
    dtype: str, bench: Workbench
) -> None:
    models = {"m1": layer(SHAPES, dtype=dtype)}
    scale = [{"match": "*.matrix", "value": 0.3}, {"match": "*.vector", "value": 0}, 1]
    expression = {"passthrough": {"model": "m1", "scale": scale}}
    plan = bench.planned(expression, models)
    copied = {t.spec.name for t in plan.tensors if isinstance(t.node, Stored)}
    assert copied == {name for name in models["m1"] if not name.endswith(("matrix", "vector"))}
    for name, tensor in bench.merged(expression, models).items():
        factor = {"matrix": 0.3, "vector": 0.0}.get(name.rpartition(".")[2], 1.0)
        assert_rounded_once(tensor, factor * float64(models["m1"][name]), 0.0)


def test_passthrough_agrees_with_mergekit(bench: Workbench, mergekit: Oracle) -> None:
    models = {"m1": layer(SHAPES)}
    found = bench.merged({"passthrough": {"model": "m1", "scale": 0.7}}, models)
    theirs = mergekit("passthrough", models, scale={"m1": 0.7})
    assert all(relative_error(found[name], float64(theirs[name])) < 1e-6 for name in found)


def test_arcee_fusion_takes_over_as_many_as_sorting_all_of_them_finds(bench: Workbench) -> None:
    """Of more than the million elements that mergekit samples its quantiles from."""
    random = np.random.default_rng(0)
    base = in_layer({"matrix": random.standard_normal((1030, 1031))}, "BF16")
    models = {"base": base, "m1": tuned(base, seed=1, scale=0.1)}
    case = CASES["arcee fusion"]
    (found,) = bench.merged(case.expression, models).values()
    (name,) = base
    assert np.array_equal(float64(found), case.exact(models, name))
    assert 0 < np.count_nonzero(found != base[name]) < 0.2 * found.size
