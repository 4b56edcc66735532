"""The reference is itself held to known answers before the engine is held to it."""

import ml_dtypes
import numpy as np
import pytest

from tests.real.reference import (
    count_off,
    from_bfloat16,
    linear,
    over_depth,
    slerp,
    to_bfloat16,
    ulps_apart,
)

EVERY_BFLOAT16 = np.arange(2**16, dtype=np.uint16)
FINITE = EVERY_BFLOAT16[(EVERY_BFLOAT16 & 0x7FFF) < 0x7F80]


def test_bit_patterns_have_the_values_ml_dtypes_gives_them() -> None:
    values = FINITE.view(ml_dtypes.bfloat16).astype(np.float64)
    assert np.array_equal(from_bfloat16(FINITE), values)


def test_every_finite_bfloat16_rounds_to_itself() -> None:
    assert np.array_equal(to_bfloat16(from_bfloat16(FINITE)), FINITE)


def test_midpoints_go_to_the_even_neighbour_and_anything_off_them_to_the_nearest() -> None:
    lower = np.arange(0x7F7F, dtype=np.uint16)  # every finite value from zero but the last
    upper = lower + np.uint16(1)
    middle = (from_bfloat16(lower) + from_bfloat16(upper)) / 2
    even = np.where(lower % 2 == 0, lower, upper)
    assert np.array_equal(to_bfloat16(middle), even)
    # In float32 these two would be the midpoint itself, and round to even.
    assert np.array_equal(to_bfloat16(np.nextafter(middle, np.inf)), upper)
    assert np.array_equal(to_bfloat16(np.nextafter(middle, 0)), lower)


def test_values_past_the_largest_bfloat16_become_infinite_where_rounding_says_so() -> None:
    largest, infinite = 0x7F7F, 0x7F80
    halfway = 2.0**128 - 2.0**119
    assert to_bfloat16(np.array([np.nextafter(halfway, 0), halfway])).tolist() == [
        largest,
        infinite,
    ]


def test_distance_counts_the_values_between_across_zero() -> None:
    zero, minus_zero, least, minus_least = 0x0000, 0x8000, 0x0001, 0x8001
    a = np.array([zero, least, least, 0x3F80], dtype=np.uint16)
    b = np.array([minus_zero, minus_least, zero, 0x3F82], dtype=np.uint16)
    assert ulps_apart(a, b).tolist() == [0, 2, 1, 2]


def test_elements_an_ulp_off_are_counted_and_those_further_off_are_refused() -> None:
    exact, inputs = np.array([1.0, 1.0, 1.0]), [np.ones(3)]
    one, ulp = 0x3F80, 1
    assert count_off(np.array([one, one + ulp, one], dtype=np.uint16), exact, inputs) == 1
    with pytest.raises(AssertionError):
        count_off(np.array([one, one + 2 * ulp, one], dtype=np.uint16), exact, inputs)


def test_what_is_left_of_inputs_that_cancel_may_be_off_by_their_float64_rounding() -> None:
    left = to_bfloat16(np.array([2.0**-52]))
    assert count_off(left, np.zeros(1), [np.ones(1), -np.ones(1)]) == 1
    with pytest.raises(AssertionError):
        count_off(left, np.zeros(1), [np.full(1, 2.0**-4), np.full(1, -(2.0**-4))])


def test_linear_of_known_vectors() -> None:
    a, b = np.array([1.0, 2.0]), np.array([3.0, 6.0])
    assert linear([a, b], [1, 3]).tolist() == [2.5, 5.0]


def test_slerp_of_a_right_angle_passes_through_the_circle() -> None:
    a, b = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    third = slerp(a, b, 1 / 3)
    assert third == pytest.approx([np.cos(np.pi / 6), np.sin(np.pi / 6)], rel=1e-15)


def test_slerp_of_nearly_parallel_vectors_is_their_average() -> None:
    a, b = np.array([1.0, 0.0]), np.array([1.0, 1e-9])
    assert slerp(a, b, 0.25) == pytest.approx([1.0, 0.25e-9], rel=1e-15)


def test_list_is_spread_over_the_depth_and_held_outside_it() -> None:
    def at(name: str) -> float:
        return over_depth([0.0, 1.0, 0.0], name, depth=5)

    assert at("model.embed_tokens.weight") == 0.0
    assert [at(f"model.layers.{layer}.mlp.up_proj.weight") for layer in range(5)] == [
        0.0,
        0.5,
        1.0,
        0.5,
        0.0,
    ]
    assert over_depth([0.0, 1.0], "model.norm.weight", depth=5) == 1.0
