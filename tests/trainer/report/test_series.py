"""Thinning keeps what stands out; smoothing invents nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorsurgeon.trainer.report.series import Series, smoothed, thinned

values = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=400)


def series_of(ys: list[float]) -> Series:
    return Series(xs=[float(x) for x in range(len(ys))], ys=ys)


@given(ys=values, limit=st.integers(4, 60))
def test_thinned_series_keeps_its_ends_and_its_extremes_within_the_limit(
    ys: list[float], limit: int
) -> None:
    found = thinned(series_of(ys), limit)
    assert len(found.xs) <= limit
    assert (found.xs[0], found.xs[-1]) == (0, len(ys) - 1)
    assert (min(found.ys), max(found.ys)) == (min(ys), max(ys))


@given(ys=values, limit=st.integers(4, 60))
def test_thinned_points_are_points_of_the_series_in_their_order(
    ys: list[float], limit: int
) -> None:
    found = thinned(series_of(ys), limit)
    assert list(found.xs) == sorted(set(found.xs))
    assert [ys[int(x)] for x in found.xs] == list(found.ys)


def test_one_spike_in_ten_thousand_steps_is_kept() -> None:
    ys = [2.0] * 10_000
    ys[6_789], ys[1_234] = 11.0, 0.5
    found = thinned(series_of(ys), 1500)
    assert len(found.xs) <= 1500
    assert (6_789.0, 11.0) in zip(found.xs, found.ys, strict=True)
    assert (1_234.0, 0.5) in zip(found.xs, found.ys, strict=True)


def test_short_series_is_left_alone() -> None:
    whole = series_of([1.0, 3.0, 2.0])
    assert thinned(whole, 4) == whole


@given(value=st.floats(-1e30, 1e30), count=st.integers(1, 500))
def test_constant_stays_exactly_itself(value: float, count: int) -> None:
    assert list(smoothed(series_of([value] * count)).ys) == [value] * count


@given(values)
def test_smoothed_series_stays_between_its_lowest_and_highest(ys: list[float]) -> None:
    found = smoothed(series_of(ys))
    assert len(found.ys) == len(ys)
    assert min(ys) <= min(found.ys)
    assert max(found.ys) <= max(ys)
    assert found.ys[0] == pytest.approx(ys[0], abs=1e-12 * max(map(abs, ys)))


def test_straight_line_stays_straight_but_for_its_end() -> None:
    ys = [0.5 * x for x in range(400)]
    found = smoothed(series_of(ys)).ys
    assert found[:380] == pytest.approx(ys[:380])


def test_noise_is_reduced_and_a_steep_start_is_not_flattened() -> None:
    ys = [6.0 / (1 + x) + (0.1 if x % 2 else -0.1) for x in range(1000)]
    found = smoothed(series_of(ys)).ys
    assert found[0] == pytest.approx(ys[0])
    assert max(abs(found[x] - 6.0 / (1 + x)) for x in range(100, 1000)) < 0.02


@given(values)
def test_value_near_a_point_is_the_point_and_far_from_all_there_is_none(ys: list[float]) -> None:
    series = Series(xs=[1000.0 * (x + 1) for x in range(len(ys))], ys=ys)
    for x, y in zip(series.xs, ys, strict=True):
        assert series.near(x) == series.near(1.001 * x) == y
    assert series.near(500) is None
    assert series.near(1100 * len(ys)) is None
    assert Series().near(1) is None
