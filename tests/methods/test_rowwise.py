"""Methods that take each row or each column as a vector: they do to each what is done to one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorsurgeon import api
from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.operators.streaming import BLOCK
from tensorsurgeon.plan import Geometric, Streamed
from tensorsurgeon.specs import SPAN
from tests.cli.checkpoints import Tensors, read_tensors
from tests.cli.test_footprint import peak_of_apply
from tests.methods import references
from tests.methods.folders import Workbench, in_layer, layer, tuned
from tests.methods.numerics import assert_rounded_once, float64, relative_error
from tests.methods.oracle import Oracle
from tests.methods.references import Float64

SHAPES = {
    "matrix": (48, 64),
    "wide": (3, 130),
    "vector": (64,),
    "row": (1, 5),
    "narrow": (7, 6),
    "experts": (3, 10, 12),
}
LONG = {
    "many_rows": (SPAN // 1000 + 5, 1001),
    "row_above_a_block": (2, BLOCK + 3),
    "row_above_a_span": (2, SPAN + 3),
    "experts_across_spans": (3, 300, 401),
}
MATRICES = {"matrix": (48, 64), "wide": (3, 130), "vector": (64,), "row": (2, 5)}

Formula = Callable[[Float64, list[Float64]], Float64]
"""Of the base and the other models, on one vector."""


def nuslerp(along: str, *, based: bool) -> dict[str, Any]:
    body = {"models": ["m1", "m2"], "weights": [1, 3], "along": along}
    return {"nuslerp": body | ({"base": "base"} if based else {})}


def model_stock(count: int) -> dict[str, Any]:
    models = [f"m{i + 1}" for i in range(count)]
    return {"model_stock": {"base": "base", "models": models, "filter_wise": True}}


def interpolated(base: Float64, models: list[Float64]) -> Float64:
    return references.nuslerp(models, (1, 3))


def interpolated_tuning(base: Float64, models: list[Float64]) -> Float64:
    return references.nuslerp(models, (1, 3), base)


METHODS: dict[str, tuple[dict[str, Any], int, Formula, int]] = {
    "nuslerp of rows": (nuslerp("rows", based=False), 2, interpolated, -1),
    "nuslerp of columns": (nuslerp("columns", based=False), 2, interpolated, -2),
    "nuslerp of task vectors' rows": (nuslerp("rows", based=True), 2, interpolated_tuning, -1),
    "nuslerp of task vectors' columns": (
        nuslerp("columns", based=True),
        2,
        interpolated_tuning,
        -2,
    ),
    "model stock of two": (model_stock(2), 2, references.model_stock, -1),
    "model stock of four": (model_stock(4), 4, references.model_stock, -1),
}
"""Expression, number of models, formula, and the axis that its vectors run along."""

EACH = pytest.mark.parametrize(
    ("expression", "count", "formula", "axis"), METHODS.values(), ids=METHODS
)


def models_of(
    count: int, shapes: dict[str, tuple[int, ...]], dtype: str = "F32", scale: float = 0.1
) -> dict[str, Tensors]:
    base = layer(shapes, dtype=dtype)
    others = {f"m{i}": tuned(base, seed=i, scale=scale) for i in range(1, count + 1)}
    return {"base": base, **others}


def vector_by_vector(formula: Formula, axis: int, base: Float64, models: list[Float64]) -> Float64:
    """A formula on all vectors along an axis; a tensor of one axis is one vector."""
    if base.ndim == 1:
        return formula(base, models)
    stacked = np.moveaxis(np.stack([base, *models]), axis, -1)
    flat = stacked.reshape(len(stacked), -1, stacked.shape[-1])
    merged = [formula(vectors[0], list(vectors[1:])) for vectors in flat.swapaxes(0, 1)]
    return np.moveaxis(np.array(merged).reshape(stacked.shape[1:]), -1, axis)


def exact(formula: Formula, axis: int, models: dict[str, Tensors], name: str) -> Float64:
    base, *others = (float64(tensors[name]) for tensors in models.values())
    return vector_by_vector(formula, axis, base, others)


@EACH
@pytest.mark.parametrize("scale", [0.02, 0.5])
def test_each_vector_is_the_formula_to_the_last_digits_of_float64(
    expression: dict[str, Any],
    count: int,
    formula: Formula,
    axis: int,
    scale: float,
    bench: Workbench,
) -> None:
    models = models_of(count, SHAPES, scale=scale)
    for name, tensor in bench.merged(expression, models, dtype="F64").items():
        assert relative_error(tensor, exact(formula, axis, models, name)) < 2e-14, name


@EACH
def test_each_vector_is_rounded_once(
    expression: dict[str, Any], count: int, formula: Formula, axis: int, bench: Workbench
) -> None:
    models = models_of(count, SHAPES, "BF16")
    for name, tensor in bench.merged(expression, models).items():
        assert_rounded_once(tensor, exact(formula, axis, models, name), 2e-14)


@EACH
def test_vectors_across_blocks_and_spans_are_the_formula(
    expression: dict[str, Any], count: int, formula: Formula, axis: int, bench: Workbench
) -> None:
    models = models_of(count, LONG, "BF16")
    for name, tensor in bench.merged(expression, models, dtype="F64").items():
        if axis == -2 and "row_above" in name:  # columns of two: thousands of tiny references
            continue
        assert relative_error(tensor, exact(formula, axis, models, name)) < 2e-14, name


@EACH
def test_bytes_are_the_same_for_any_number_of_threads(
    expression: dict[str, Any], count: int, formula: Formula, axis: int, bench: Workbench
) -> None:
    models = models_of(count, SHAPES | LONG, "BF16")
    one, three = (bench.merged(expression, models, threads=threads) for threads in (1, 3))
    assert all(one[name].tobytes() == three[name].tobytes() for name in one)


ASKED: dict[str, tuple[dict[str, Any], int, str, bool, dict[str, Any]]] = {
    "nuslerp of rows": (
        nuslerp("rows", based=False),
        2,
        "nuslerp",
        False,
        {"weight": {"m1": 1, "m2": 3}, "nuslerp_flatten": False},
    ),
    "nuslerp of columns": (
        nuslerp("columns", based=False),
        2,
        "nuslerp",
        False,
        {"weight": {"m1": 1, "m2": 3}, "nuslerp_flatten": False, "nuslerp_row_wise": True},
    ),
    "nuslerp of task vectors' rows": (
        nuslerp("rows", based=True),
        2,
        "nuslerp",
        True,
        {"weight": {"m1": 1, "m2": 3}, "nuslerp_flatten": False},
    ),
    "nuslerp of task vectors' columns": (
        nuslerp("columns", based=True),
        2,
        "nuslerp",
        True,
        {"weight": {"m1": 1, "m2": 3}, "nuslerp_flatten": False, "nuslerp_row_wise": True},
    ),
    "model stock of two": (model_stock(2), 2, "model_stock", True, {"filter_wise": True}),
    "model stock of four": (model_stock(4), 4, "model_stock", True, {"filter_wise": True}),
}
"""The same as mergekit calls it: expression, number of models, method, base, parameters."""


@pytest.mark.parametrize(
    ("expression", "count", "method", "based", "parameters"), ASKED.values(), ids=ASKED
)
def test_float32_agrees_with_mergekit_to_a_millionth(
    expression: dict[str, Any],
    count: int,
    method: str,
    based: bool,
    parameters: dict[str, Any],
    mergekit: Oracle,
    bench: Workbench,
) -> None:
    models = models_of(count, MATRICES, scale=0.5)
    given = models if based else {name: models[name] for name in list(models)[1:]}
    theirs = mergekit(method, given, base=based, **parameters)
    for name, tensor in bench.merged(expression, models).items():
        assert relative_error(tensor, float64(theirs[name])) < 1e-6, name


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 9),
    columns=st.integers(1, 40),
    along=st.sampled_from(["rows", "columns"]),
)
def test_columns_are_the_rows_of_the_transpose(
    seed: int, rows: int, columns: int, along: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """To the last digits: their products are summed in another order."""
    bench = Workbench(tmp_path_factory.mktemp("transposed"))
    random = np.random.default_rng(seed)
    matrices = {name: random.standard_normal((rows, columns)) for name in ("m1", "m2")}
    other = "columns" if along == "rows" else "rows"
    upright = {name: in_layer({"w": values}, "F64") for name, values in matrices.items()}
    turned = {
        name: in_layer({"w": np.ascontiguousarray(values.T)}, "F64")
        for name, values in matrices.items()
    }
    (found,) = bench.merged(nuslerp(along, based=False), upright).values()
    (expected,) = bench.merged(nuslerp(other, based=False), turned).values()
    assert relative_error(found.T, expected) < 1e-13


@pytest.mark.parametrize("shape", [(1, 700), (700,)], ids=["one row", "a vector"])
@pytest.mark.parametrize("rowwise", [model_stock(3), nuslerp("rows", based=True)], ids=repr)
def test_what_is_one_row_is_merged_as_a_tensor_is(
    rowwise: dict[str, Any], shape: tuple[int, ...], bench: Workbench
) -> None:
    ((method, body),) = rowwise.items()
    whole = {method: {k: v for k, v in body.items() if k not in ("along", "filter_wise")}}
    models = models_of(3, {"w": shape})
    (found,) = bench.merged(rowwise, models, dtype="F64").values()
    (expected,) = bench.merged(whole, models, dtype="F64").values()
    assert relative_error(found, expected) < 1e-15


def rows_of(*rows: Float64) -> Tensors:
    return in_layer({"w": np.array(rows)}, "F64")


LINE, OTHER = np.arange(1.0, 101.0), np.sin(np.arange(100.0))
ODD = {
    "zero": (0 * LINE, LINE, "an input is zero: interpolated linearly"),
    "both zero": (0 * LINE, 0 * LINE, ""),
    "antiparallel": (LINE, -2 * LINE, "the inputs are antiparallel: interpolated linearly"),
    "parallel": (LINE, 3 * LINE, ""),
}


@pytest.mark.parametrize(("first", "second", "note"), ODD.values(), ids=ODD)
def test_rows_without_an_arc_fall_back_to_linear_and_the_others_do_not(
    first: Float64, second: Float64, note: str, bench: Workbench
) -> None:
    models = {"m1": rows_of(first, LINE, first), "m2": rows_of(second, OTHER, second)}
    expression = nuslerp("rows", based=False)
    (found,) = bench.merged(expression, models).values()
    straight, arc = 0.25 * first + 0.75 * second, references.nuslerp([LINE, OTHER], (1, 3))
    assert relative_error(found, np.array([straight, arc, straight])) < 1e-14
    told = (f"some rows: {note} (1 tensors)",) if note else ()
    assert bench.notes(expression, models) == told


def test_model_stock_keeps_the_base_in_rows_that_oppose_each_other(bench: Workbench) -> None:
    models = {
        "base": rows_of(OTHER, OTHER),
        "m1": rows_of(OTHER + LINE, OTHER + LINE),
        "m2": rows_of(OTHER - LINE, OTHER + LINE),
    }
    (found,) = bench.merged(model_stock(2), models).values()
    assert relative_error(found, np.array([OTHER, OTHER + LINE])) < 1e-14
    (told,) = bench.notes(model_stock(2), models)
    assert told == "some rows: the models oppose each other: the base is kept (1 tensors)"


@EACH
def test_models_that_were_not_changed_give_the_base_bit_for_bit(
    expression: dict[str, Any], count: int, formula: Formula, axis: int, bench: Workbench
) -> None:
    base = layer(SHAPES, dtype="BF16")
    models = dict.fromkeys(["base", "m1", "m2", "m3", "m4"], base)
    for name, tensor in bench.merged(expression, models).items():
        assert tensor.tobytes() == base[name].tobytes()


def test_row_with_a_nan_becomes_nan_and_no_other_does(bench: Workbench) -> None:
    models = models_of(2, {"w": (5, 40)})
    (name,) = models["m1"]
    models["m1"][name][3, 7] = np.nan
    with pytest.raises(CheckpointError, match=r"m1:\S+ has 1 NaN"):
        bench.merged(model_stock(2), models)
    made = api.apply(bench.planned(model_stock(2), models), threads=1, allow_nonfinite=True)
    assert made.path is not None
    found = read_tensors(made.path)[name]
    assert np.isnan(found).all(axis=1).tolist() == [False, False, False, True, False]
    assert np.isfinite(found[[0, 1, 2, 4]]).all()


def test_plan_reads_rows_once_and_columns_twice(bench: Workbench) -> None:
    models = models_of(2, {"w": (30, 40)})
    once, twice = (
        bench.planned(nuslerp(along, based=False), models).bytes_read
        for along in ("rows", "columns")
    )
    assert (once, twice) == (2 * 30 * 40 * 4, 2 * 2 * 30 * 40 * 4)


def test_plan_takes_several_vectors_apart_only_where_there_are_several(bench: Workbench) -> None:
    models = models_of(2, {"w": (30, 40), "b": (40,)})
    nodes = {
        tensor.spec.name.rpartition(".")[2]: type(tensor.node)
        for tensor in bench.planned(nuslerp("rows", based=True), models).tensors
    }
    assert nodes == {"w": Streamed, "b": Geometric}
    end = {"nuslerp": {"models": ["m1", "m2"], "weights": [0, 1], "along": "rows"}}
    assert all(tensor.is_copied for tensor in bench.planned(end, models).tensors)


@pytest.mark.parametrize("shape", [(12, 300_000), (300_000, 12)], ids=["wide", "high"])
@pytest.mark.parametrize("along", ["rows", "columns"])
def test_forecast_is_kept(along: str, shape: tuple[int, int], bench: Workbench) -> None:
    path = bench.recipe(nuslerp(along, based=True), models_of(2, {"w": shape}, "BF16"))
    budget = api.memory_for(api.plan(path), 1)
    assert peak_of_apply(path, "--max-memory", str(budget)) <= budget
