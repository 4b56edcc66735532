"""Methods that factor task matrices, against the plain SVD of whole tensors in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorsurgeon import api
from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.operators.matrices import singular
from tensorsurgeon.plan import Streamed, Sum
from tests.cli.checkpoints import Tensors, read_tensors
from tests.cli.test_footprint import peak_of_apply
from tests.methods.folders import Workbench, in_layer, layer, tiny_models, tuned
from tests.methods.numerics import assert_rounded_once, float64, relative_error
from tests.methods.references import Float64

SHAPES = {
    "square": (48, 48),
    "wide": (30, 130),
    "high": (90, 20),
    "experts": (3, 16, 40),
    "several_spans": (300, 900),
}
VECTORS = {"vector": (64,), "column": (7, 1), "convolution": (8, 1, 4), "kernel": (4, 3, 2, 2)}

METHODS = pytest.mark.parametrize("method", ["iso_c", "tsv_m"])


def iso_c(deltas: list[Float64]) -> Float64:
    """The polar factor of the sum, times the mean singular value (Marczak et al. 2025)."""
    left, values, right = np.linalg.svd(sum(deltas), full_matrices=False)
    return np.asarray(values.mean() * left @ right)


def tsv_m(deltas: list[Float64]) -> Float64:
    """Truncated task matrices on orthonormal directions (Gargiulo et al. 2024, algorithm 1)."""
    factors = [np.linalg.svd(delta, full_matrices=False) for delta in deltas]
    most = max(1, min(deltas[0].shape) // len(deltas))
    left = np.concatenate([u[:, :most] for u, _, _ in factors], axis=1)
    values = np.concatenate([s[:most] for _, s, _ in factors])
    right = np.concatenate([v[:most] for _, _, v in factors])
    return np.asarray(polar(left) @ np.diag(values) @ polar(right))


def polar(matrix: Float64) -> Float64:
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray(left @ right)


FORMULAS: dict[str, Callable[[list[Float64]], Float64]] = {"iso_c": iso_c, "tsv_m": tsv_m}


def merged_matrix(method: str, base: Float64, models: list[Float64], factor: float) -> Float64:
    """The formula on a matrix, or on each of a stack."""
    if base.ndim > 2:
        each = zip(base, *models, strict=True)
        return np.array([merged_matrix(method, one, more, factor) for one, *more in each])
    return np.asarray(base + factor * FORMULAS[method]([model - base for model in models]))


def models_of(
    count: int, shapes: dict[str, tuple[int, ...]], dtype: str = "F32", scale: float = 0.1
) -> dict[str, Tensors]:
    base = layer(shapes, dtype=dtype)
    others = {f"m{i}": tuned(base, seed=i, scale=scale) for i in range(1, count + 1)}
    return {"base": base, **others}


def expression(method: str, count: int, factor: float = 1.0) -> dict[str, Any]:
    models = [f"m{i}" for i in range(1, count + 1)]
    return {method: {"base": "base", "models": models, "lambda": factor}}


def split(models: dict[str, Tensors], name: str) -> tuple[Float64, list[Float64]]:
    base, *others = (float64(tensors[name]) for tensors in models.values())
    return base, others


@METHODS
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_result_is_the_formula_to_ten_digits(method: str, count: int, bench: Workbench) -> None:
    models = models_of(count, SHAPES)
    found = bench.merged(expression(method, count, 0.7), models, dtype="F64")
    for name, tensor in found.items():
        base, others = split(models, name)
        update = merged_matrix(method, base, others, 0.7) - base
        assert relative_error(tensor - base, update) < 1e-10, name


@METHODS
@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_result_is_rounded_once(method: str, dtype: str, bench: Workbench) -> None:
    models = models_of(3, SHAPES, dtype)
    for name, tensor in bench.merged(expression(method, 3), models).items():
        assert_rounded_once(tensor, merged_matrix(method, *split(models, name), 1.0), 1e-11)


@METHODS
def test_what_is_no_matrix_gets_the_mean_of_the_task_vectors(method: str, bench: Workbench) -> None:
    models = models_of(3, VECTORS)
    for name, tensor in bench.merged(expression(method, 3, 0.7), models, dtype="F64").items():
        base, others = split(models, name)
        mean = base + 0.7 * (np.mean(others, axis=0) - base)
        assert relative_error(tensor, mean) < 1e-15, name


@METHODS
def test_embedding_and_output_head_get_the_mean_of_the_task_vectors(
    method: str, bench: Workbench
) -> None:
    models = tiny_models(["base", "m1", "m2"])
    plan = bench.planned(expression(method, 2), models)
    kinds = {tensor.spec.name: type(tensor.node) for tensor in plan.tensors}
    assert {name for name, kind in kinds.items() if kind is Streamed} == {
        name for name, values in models["base"].items() if ".layers." in name and values.ndim == 2
    }
    assert {kinds["model.embed_tokens.weight"], kinds["lm_head.weight"]} == {Sum}


@METHODS
def test_bytes_are_the_same_for_any_number_of_threads(method: str, bench: Workbench) -> None:
    models = models_of(3, SHAPES | {f"more_{i}": (64, 200) for i in range(6)}, "BF16")
    one, two = (bench.merged(expression(method, 3), models, threads=n) for n in (1, 2))
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)


@METHODS
def test_models_that_were_not_changed_give_the_base_bit_for_bit(
    method: str, bench: Workbench
) -> None:
    base = layer(SHAPES | VECTORS, dtype="BF16")
    found = bench.merged(expression(method, 2), dict.fromkeys(["base", "m1", "m2"], base))
    assert all(tensor.tobytes() == base[name].tobytes() for name, tensor in found.items())


@METHODS
def test_factor_of_zero_copies_the_base(method: str, bench: Workbench) -> None:
    plan = bench.planned(expression(method, 2, 0.0), models_of(2, SHAPES | VECTORS))
    assert all(tensor.is_copied for tensor in plan.tensors)


def test_iso_c_has_one_singular_value_the_mean_of_those_of_the_sum(bench: Workbench) -> None:
    models = models_of(2, {"w": (30, 50)}, "F64")
    ((name, found),) = bench.merged(expression("iso_c", 2), models).items()
    base, others = split(models, name)
    mean = np.linalg.svd(sum(others) - 2 * base, compute_uv=False).mean()
    values = np.linalg.svd(found - base, compute_uv=False)
    np.testing.assert_allclose(values, mean, rtol=1e-12)


def test_tsv_m_keeps_the_singular_values_of_all_tasks(bench: Workbench) -> None:
    """Four times the quarter of them that is largest."""
    models = models_of(4, {"w": (40, 70)}, "F64")
    ((name, found),) = bench.merged(expression("tsv_m", 4), models).items()
    base, others = split(models, name)
    kept = [np.linalg.svd(model - base, compute_uv=False)[:10] for model in others]
    values = np.linalg.svd(found - base, compute_uv=False)
    np.testing.assert_allclose(values, np.sort(np.concatenate(kept))[::-1], rtol=1e-12)


def test_tsv_m_of_one_model_is_that_model(bench: Workbench) -> None:
    models = models_of(1, SHAPES, "F64")
    for name, tensor in bench.merged(expression("tsv_m", 1), models).items():
        assert relative_error(tensor, float64(models["m1"][name])) < 1e-13


@pytest.mark.parametrize("copies", [2, 3])
def test_tsv_m_of_one_task_several_times_is_its_kept_components(
    copies: int, bench: Workbench
) -> None:
    """As many directions as all copies have in common count, and no arbitrary ones."""
    models = models_of(1, {"w": (30, 50)}, "F64")
    again = {f"m{i + 1}": models["m1"] for i in range(copies)}
    ((name, found),) = bench.merged(
        expression("tsv_m", copies), {"base": models["base"], **again}
    ).items()
    base, (model,) = split(models, name)
    left, values, right = np.linalg.svd(model - base, full_matrices=False)
    most = 30 // copies
    update = (left[:, :most] * values[:most]) @ right[:most]
    assert relative_error(found - base, update) < 1e-12


def test_tsv_m_keeps_a_component_of_each_of_more_tasks_than_there_are(bench: Workbench) -> None:
    models = models_of(5, {"w": (3, 40)}, "F64")
    ((name, found),) = bench.merged(expression("tsv_m", 5), models).items()
    update = found - float64(models["base"][name])
    assert np.linalg.matrix_rank(update) == 3


@METHODS
def test_task_matrices_of_low_rank_give_an_update_of_low_rank(
    method: str, bench: Workbench
) -> None:
    """Directions without extent are no one's, and are left alone."""
    random = np.random.default_rng(5)
    base = random.standard_normal((60, 80))
    shared = random.standard_normal((60, 4))
    deltas = [shared @ random.standard_normal((4, 80)) for _ in range(2)]
    values = {"base": base, **{f"m{i}": base + d for i, d in enumerate(deltas, 1)}}
    models = {name: in_layer({"w": value}, "F64") for name, value in values.items()}
    (found,) = bench.merged(expression(method, 2), models).values()
    assert np.linalg.matrix_rank(found - base, tol=1e-10) == 4


@METHODS
def test_order_of_the_models_does_not_matter(method: str, bench: Workbench) -> None:
    models = models_of(3, SHAPES, "F64")
    turned = expression(method, 3)
    turned[method]["models"].reverse()
    found = bench.merged(expression(method, 3), models)
    for name, tensor in bench.merged(turned, models).items():
        assert relative_error(tensor, found[name]) < 1e-12


@METHODS
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_matrix_with_a_nan_is_told_or_becomes_nan(
    method: str, value: float, bench: Workbench
) -> None:
    models = models_of(2, {"experts": (3, 16, 40)})
    (name,) = models["m2"]
    models["m2"][name][1, 2, 3] = value
    with pytest.raises(CheckpointError, match=r"m2:\S+ has 1 (NaN|infinite value)"):
        bench.merged(expression(method, 2), models)
    plan = bench.planned(expression(method, 2), models)
    made = api.apply(plan, threads=1, allow_nonfinite=True)
    assert made.path is not None
    found = read_tensors(made.path)[name]
    assert np.isfinite(found).all(axis=(1, 2)).tolist() == [True, False, True]
    assert np.isnan(found[1]).all()


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    fall=st.floats(0, 3),
    most=st.integers(1, 40),
)
def test_cheaper_factors_are_those_of_the_svd_to_ten_digits(
    seed: int, rows: int, columns: int, fall: float, most: int
) -> None:
    """Whatever the spread of the singular values, which is up to 10^3."""
    random = np.random.default_rng(seed)
    short = min(rows, columns)
    left, _, right = np.linalg.svd(random.standard_normal((rows, columns)), full_matrices=False)
    values = 10 ** -np.linspace(0, fall, short)
    matrix = (left * values) @ right
    found_left, found, found_right = singular(matrix, most)
    kept = min(most, short)
    np.testing.assert_allclose(found, values[:kept], rtol=1e-10)
    np.testing.assert_allclose(found_left.T @ found_left, np.eye(kept), atol=1e-10)
    np.testing.assert_allclose(found_right @ found_right.T, np.eye(kept), atol=1e-10)
    np.testing.assert_allclose(found_left.T @ matrix, found[:, None] * found_right, atol=1e-10)
    if kept == short:
        np.testing.assert_allclose(found_left @ found_right, left @ right, atol=1e-10)


@pytest.mark.parametrize(
    ("shape", "threads"), [((1000, 1000), 1), ((700, 1600), 2)], ids=["square", "wide"]
)
@METHODS
def test_forecast_is_kept_and_no_more_than_twice_the_peak(
    method: str, shape: tuple[int, int], threads: int, bench: Workbench
) -> None:
    """Of matrices that take the whole SVD, since one direction is far above all others."""
    models = models_of(2, {"0": shape, "1": shape})
    for name in ("m1", "m2"):
        models[name] = {key: values + np.float32(30) for key, values in models[name].items()}
    path = bench.recipe(expression(method, 2), models)
    budget = api.memory_for(api.plan(path), threads)
    peak = peak_of_apply(path, "--threads", str(threads), "--max-memory", str(budget))
    assert budget / 2 < peak <= budget
