"""What must hold for any vectors and weights, of each method's coefficients."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tensorsurgeon.errors import RecipeError
from tensorsurgeon.operators import (
    AddDifference,
    Coefficients,
    GeometricMedian,
    Karcher,
    Linear,
    ModelStock,
    Multislerp,
    Nuslerp,
    Slerp,
    TaskArithmetic,
)
from tensorsurgeon.operators.weights import normalized
from tensorsurgeon.recipe import Reference
from tests.methods.laws import (
    gram,
    operator,
    positive,
    seeds,
    several,
    together,
    weighted,
)
from tests.methods.references import Float64, norm, sum_of_distances

Average = Callable[[Float64, tuple[float, ...]], Coefficients]
"""A method that makes one vector of several by their weights."""

TO_THE_END: dict[str, Any] = {"max_iter": 2000, "tol": 1e-12}


def linear(vectors: Float64, weights: tuple[float, ...]) -> Coefficients:
    return operator(Linear, len(vectors)).coefficients(weights)


def multislerp(vectors: Float64, weights: tuple[float, ...]) -> Coefficients:
    return operator(Multislerp, len(vectors)).coefficients(gram(vectors), weights)


def karcher(vectors: Float64, weights: tuple[float, ...]) -> Coefficients:
    return operator(Karcher, len(vectors), **TO_THE_END).coefficients(gram(vectors), weights)


def geometric_median(vectors: Float64, weights: tuple[float, ...]) -> Coefficients:
    method = operator(GeometricMedian, len(vectors), **TO_THE_END)
    return method.coefficients(gram(vectors), weights)


AVERAGES = {method.__name__: method for method in (linear, multislerp, karcher, geometric_median)}
every_average = pytest.mark.parametrize("average", AVERAGES.values(), ids=AVERAGES)

quickly = settings(deadline=None, max_examples=40)


def near(found: Float64, exact: Float64, size: float) -> bool:
    """Whether two vectors are the same but for rounding, in terms of what they were made of."""
    return norm(found - exact) <= 1e-6 * size


@every_average
@given(case=weighted(), seed=seeds)
@quickly
def test_order_of_the_models_changes_nothing(
    average: Average, case: tuple[Float64, tuple[float, ...]], seed: int
) -> None:
    vectors, weights = case
    order = np.random.default_rng(seed).permutation(len(vectors))
    straight = average(vectors, weights)
    mixed = average(vectors[order], tuple(weights[i] for i in order))
    assume(not straight.note and not mixed.note)
    found, exact = together(mixed, vectors[order]), together(straight, vectors)
    assert near(found, exact, np.abs(vectors).max())


@every_average
@given(case=weighted(), factor=positive)
@quickly
def test_only_the_weights_ratios_count(
    average: Average, case: tuple[Float64, tuple[float, ...]], factor: float
) -> None:
    vectors, weights = case
    once, more = average(vectors, weights), average(vectors, tuple(factor * w for w in weights))
    assume(not once.note and not more.note)
    assert near(together(more, vectors), together(once, vectors), np.abs(vectors).max())


@every_average
@given(case=weighted(), exponent=st.integers(-100, 100))
@quickly
def test_size_of_all_tensors_changes_no_coefficient(
    average: Average, case: tuple[Float64, tuple[float, ...]], exponent: int
) -> None:
    vectors, weights = case
    assert average(vectors * 2.0**exponent, weights) == average(vectors, weights)


@every_average
@given(case=weighted(least=1, most=1), count=st.integers(2, 5))
@quickly
def test_one_tensor_several_times_comes_back(
    average: Average, case: tuple[Float64, tuple[float, ...]], count: int
) -> None:
    vector, (weight,) = case
    vectors = np.repeat(vector, count, axis=0)
    weights = tuple(weight * (i + 1) for i in range(count))
    np.testing.assert_allclose(together(average(vectors, weights), vectors), vector[0], rtol=1e-13)


@every_average
@given(case=weighted(), at=st.integers(0, 4))
@quickly
def test_model_without_weight_is_as_if_it_were_not_there(
    average: Average, case: tuple[Float64, tuple[float, ...]], at: int
) -> None:
    vectors, weights = case
    at = min(at, len(vectors))
    more = np.insert(vectors, at, 1.7, axis=0)
    without, beside = average(vectors, weights), average(more, (*weights[:at], 0.0, *weights[at:]))
    assume(not without.note and not beside.note)
    assert near(together(beside, more), together(without, vectors), np.abs(more).max())


@pytest.mark.parametrize("kind", [Multislerp, Karcher, GeometricMedian])
@given(count=st.integers(2, 5), at=st.integers(0, 4), weight=positive)
@quickly
def test_all_weight_on_one_model_is_that_model_unread(
    kind: type[Multislerp | Karcher | GeometricMedian], count: int, at: int, weight: float
) -> None:
    weights = tuple(weight if i == at % count else 0.0 for i in range(count))
    known = operator(kind, count).foregone(weights)
    assert known == Coefficients(tuple(float(w > 0.0) for w in weights))


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_ends_of_an_arc_are_its_models_unread(t: float) -> None:
    assert operator(Slerp, 2, t=t).foregone(t) == Coefficients((1.0 - t, t))
    weights = (3.0 * (1.0 - t), 3.0 * t)
    assert operator(Nuslerp, 2).foregone(weights) == Coefficients((1.0 - t, t))


@given(vectors=several(2, 2), t=st.floats(0, 1))
@quickly
def test_arc_is_the_same_from_its_other_end(vectors: Float64, t: float) -> None:
    there = operator(Slerp, 2, t=t).coefficients(gram(vectors), t)
    back = operator(Slerp, 2, t=t).coefficients(gram(vectors[::-1]), 1.0 - t)
    np.testing.assert_allclose(there.values, back.values[::-1], rtol=1e-9, atol=1e-12)


@given(vectors=several(2, 2), t=st.floats(0, 1))
@quickly
def test_arc_between_vectors_of_one_length_keeps_it(vectors: Float64, t: float) -> None:
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = operator(Slerp, 2, t=t).coefficients(gram(units), t)
    assume(not found.note)
    assert norm(together(found, units)) == pytest.approx(1.0, rel=1e-7)


@given(vectors=several(2, 2), first=positive, second=positive)
@quickly
def test_nuslerp_is_slerp_at_the_second_weights_share(
    vectors: Float64, first: float, second: float
) -> None:
    share = second / (first + second)
    found = operator(Nuslerp, 2).coefficients(gram(vectors), (first, second))
    exact = operator(Slerp, 2, t=share).coefficients(gram(vectors), share)
    np.testing.assert_allclose(found.values, exact.values, rtol=1e-13)


@given(first=positive, second=positive, exponent=st.integers(-900, 900))
@quickly
def test_nuslerp_goes_by_the_weights_ratio_alone(
    first: float, second: float, exponent: int
) -> None:
    products = [[1.0, 0.3], [0.3, 2.0]]
    method = operator(Nuslerp, 2)
    once = method.coefficients(products, (first, second))
    more = method.coefficients(products, (first * 2.0**exponent, second * 2.0**exponent))
    assert once == more


@given(vectors=several(2, 2))
@quickly
def test_halfway_all_spherical_averages_of_vectors_of_one_length_agree(vectors: Float64) -> None:
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    halfway = operator(Slerp, 2, t=0.5).coefficients(gram(units), 0.5)
    assume(not halfway.note)
    for average in (multislerp, karcher):
        found = average(units, (1.0, 1.0))
        np.testing.assert_allclose(found.values, halfway.values, rtol=1e-7)


@given(case=weighted(), seed=seeds)
@quickly
def test_no_point_is_nearer_to_all_than_the_geometric_median(
    case: tuple[Float64, tuple[float, ...]], seed: int
) -> None:
    vectors, weights = case
    found = geometric_median(vectors, weights)
    assume(not found.note)
    median = together(found, vectors)
    least = sum_of_distances(median, list(vectors), weights)
    random = np.random.default_rng(seed)
    steps = np.abs(vectors).max() * np.logspace(-6, 0, 20)[:, None]
    for point in [*vectors, *(median + steps * random.standard_normal((20, vectors.shape[1])))]:
        assert least <= sum_of_distances(point, list(vectors), weights) * (1 + 1e-9)


@given(case=weighted(), more=st.floats(1.01, 3))
@quickly
def test_model_of_more_than_half_the_weight_is_the_geometric_median(
    case: tuple[Float64, tuple[float, ...]], more: float
) -> None:
    vectors, weights = case
    majority = (more * sum(weights[1:]), *weights[1:])
    values = geometric_median(vectors, majority).values
    assert values == (1.0, *(0.0 for _ in weights[1:]))


@given(case=weighted(3), far=st.floats(1e3, 1e6))
@quickly
def test_one_bad_model_hardly_moves_the_geometric_median(
    case: tuple[Float64, tuple[float, ...]], far: float
) -> None:
    vectors, _ = case
    bad = np.vstack([vectors, far * vectors[0]])
    median = together(geometric_median(bad, (1.0,) * len(bad)), bad)
    assert norm(median) <= 10 * np.linalg.norm(vectors, axis=1).max()


@given(vectors=several(), shift=st.floats(-100, 100))
@quickly
def test_geometric_median_moves_with_its_models(vectors: Float64, shift: float) -> None:
    moved = vectors + shift
    weights = (1.0,) * len(vectors)
    here, there = geometric_median(vectors, weights), geometric_median(moved, weights)
    assume(not here.note and not there.note)
    size = max(np.abs(vectors).max(), np.abs(moved).max())
    assert near(together(there, moved), together(here, vectors) + shift, size)


@given(vector=several(1, 1), count=st.integers(2, 5))
@quickly
def test_model_stock_of_models_alike_is_their_mean(vector: Float64, count: int) -> None:
    method = operator(ModelStock, count, base=Reference("base"))
    values = method.coefficients(gram(np.repeat(vector, count, axis=0))).values
    np.testing.assert_allclose(values, [1 / count] * count, rtol=1e-12)


@given(count=st.integers(2, 5), seed=seeds)
@quickly
def test_model_stock_of_models_at_right_angles_is_the_base(count: int, seed: int) -> None:
    vectors = np.diag(np.random.default_rng(seed).uniform(0.1, 10, count))
    found = operator(ModelStock, count, base=Reference("base")).coefficients(gram(vectors))
    assert found == Coefficients((0.0,) * count)


@given(vectors=several(2, 5), exponent=st.integers(-100, 100))
@quickly
def test_model_stock_goes_by_angles_alone(vectors: Float64, exponent: int) -> None:
    method = operator(ModelStock, len(vectors), base=Reference("base"))
    lengths = 2.0 ** (exponent * np.arange(len(vectors))[:, None] // 4)
    found, scaled = (method.coefficients(gram(x)) for x in (vectors, lengths * vectors))
    np.testing.assert_allclose(scaled.values, found.values, rtol=1e-9)


@given(weights=st.lists(positive, min_size=1, max_size=5), factor=positive)
@quickly
def test_task_arithmetic_is_linear_in_lambda(weights: list[float], factor: float) -> None:
    method = operator(TaskArithmetic, len(weights), base=Reference("base"))
    once, more = (method.coefficients(tuple(weights), lambda_) for lambda_ in (1.0, factor))
    assert more.values == tuple(factor * value for value in once.values)


@given(weights=st.lists(st.floats(-10, 10), min_size=1, max_size=5))
@quickly
def test_task_arithmetic_keeps_the_rest_of_the_base(weights: list[float]) -> None:
    method = operator(TaskArithmetic, len(weights), base=Reference("base"))
    shares = method.coefficients(tuple(weights), 1.0).of_inputs(based=True)
    assert sum(shares) == pytest.approx(1.0, abs=1e-12)


@given(alpha=st.floats(-10, 10))
@quickly
def test_add_difference_is_its_formula(alpha: float) -> None:
    body = {"model": Reference("a"), "plus": Reference("b"), "minus": Reference("c")}
    found = AddDifference.model_validate(body).coefficients(alpha)
    assert found == Coefficients((1.0, alpha, -alpha))


@given(weights=st.lists(st.floats(-1e150, 1e150), min_size=1, max_size=6))
@quickly
def test_normalized_weights_sum_to_one_or_are_refused(weights: list[float]) -> None:
    try:
        shares = normalized(tuple(weights), "linear")
    except RecipeError:
        assert abs(sum(weights)) <= 1e-11 * sum(map(abs, weights))
        return
    assert sum(shares) == pytest.approx(1.0, abs=1e-9 * sum(map(abs, shares)))
