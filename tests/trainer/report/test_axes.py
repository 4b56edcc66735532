"""Axes hold what is drawn on them, and their labels say where that is."""

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tensorsurgeon.trainer.report.axes import SIZE, Axis, amount, axis_of, significant

numbers = st.lists(st.floats(-1e30, 1e30), max_size=40)
SUFFIXES = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


@given(values=numbers, zero=st.booleans(), count=st.integers(2, 8))
@example(values=[], zero=False, count=5)
@example(values=[0.0], zero=True, count=5)
@example(values=[5e-324], zero=False, count=5)
@example(values=[1e30, 1e30], zero=False, count=5)
@example(values=[1.0, 1.0 + 2**-52], zero=False, count=5)
@example(values=[-1e30, 1e30], zero=False, count=5)
def test_axis_holds_all_values_with_rising_ticks_that_read_differently(
    values: list[float], zero: bool, count: int
) -> None:
    axis = axis_of(values, zero=zero, count=count)
    assert math.isfinite(axis.low)
    assert axis.low < axis.high
    assert all(axis.low <= value <= axis.high for value in values)
    assert 1 <= len(axis.ticks) == len(axis.labels) <= 2 * count + 2
    assert all(before < after for before, after in itertools.pairwise(axis.ticks))
    assert len(set(axis.labels)) == len(axis.labels)
    slack = 1e-6 * (axis.high - axis.low)
    assert all(axis.low - slack <= tick <= axis.high + slack for tick in axis.ticks)


@given(values=st.lists(st.floats(-1e30, 1e30), min_size=2), zero=st.booleans())
def test_larger_values_lie_further_along_an_axis(values: list[float], zero: bool) -> None:
    axis = axis_of(values, zero=zero)
    places = [axis.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert places[0] >= 0
    assert places[-1] <= SIZE + 1e-6


@given(st.floats(1e-3, 1e13), st.sampled_from(["", "count"]))
def test_label_is_the_tick_it_stands_at(high: float, unit: str) -> None:
    axis = axis_of([0, high], unit=unit, margin=0)
    step = axis.ticks[1] - axis.ticks[0]
    for tick, label in zip(axis.ticks, axis.labels, strict=True):
        factor = SUFFIXES.get(label[-1], 1)
        read = float(label.rstrip("kMBT").replace(",", "")) * factor
        assert read == pytest.approx(tick, abs=1e-6 * step)


@pytest.mark.parametrize(
    ("values", "unit", "labels"),
    [
        ([0, 1.57e9], "count", ("0", "0.25B", "0.50B", "0.75B", "1.00B", "1.25B", "1.50B")),
        ([0, 3e-4], "", ("0", "0.5e-4", "1.0e-4", "1.5e-4", "2.0e-4", "2.5e-4", "3.0e-4")),
        ([2.1, 2.4], "", ("2.10", "2.15", "2.20", "2.25", "2.30", "2.35", "2.40")),
        ([0, 0.41], "%", ("0", "10%", "20%", "30%", "40%")),
        ([0, 38e9], "bytes", ("0", "10 GB", "20 GB", "30 GB")),
        ([0, 0], "count", ("0", "0.2", "0.4", "0.6", "0.8", "1.0")),
    ],
)
def test_ticks_are_round_and_say_their_unit(
    values: list[float], unit: str, labels: tuple[str, ...]
) -> None:
    assert axis_of(values, unit=unit, margin=0).labels == labels


def test_robust_axis_leaves_out_one_value_far_beyond_the_others() -> None:
    usual = [1.0 + i / 1000 for i in range(200)]
    assert axis_of([*usual, 500.0], robust=True).high < 3
    assert axis_of([*usual, 500.0]).high > 500
    assert axis_of([1.0, 500.0], robust=True).high > 500


def test_what_is_off_an_axis_is_at_its_end_in_percent() -> None:
    axis: Axis = axis_of([0, 10], margin=0)
    assert (axis.percent(-5), axis.percent(5), axis.percent(99)) == (0, 50, 100)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (2.3456, "2.35"),
        (0.0123, "0.0123"),
        (38.0, "38.0"),
        (1234.5, "1,234"),
        (1e-7, "1.00e-7"),
        (3e9, "3.00e9"),
        (-0.5, "-0.500"),
    ],
)
def test_numbers_are_written_in_three_digits(value: float, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "count", "0"),
        (999, "count", "999"),
        (1_000, "count", "1.00k"),
        (999_999, "count", "1.00M"),
        (999_400, "count", "999k"),
        (205_432_128, "count", "205M"),
        (2.47e9, "bytes", "2.47 GB"),
    ],
)
def test_amounts_have_a_suffix_and_no_more_digits_than_needed(
    value: float, unit: str, text: str
) -> None:
    assert amount(value, unit) == text
