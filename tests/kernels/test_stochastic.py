"""Stochastic rounding: compiled and in numpy the same bits, neighbours alone, right on average."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorsurgeon.kernels import Scratch, encode
from tensorsurgeon.kernels.task_vectors import stochastic
from tensorsurgeon.specs import DType
from tests.kernels.spans import (
    COMPILED_DTYPES,
    NUMPY,
    both,
    compiled,
    decoded,
    lengths,
    oddities,
    spans,
    stored,
)

NARROW = [dtype for dtype in NUMPY if dtype is not DType.F64]
DTYPES = pytest.mark.parametrize("dtype", NARROW, ids=lambda dtype: dtype.value)
ALL_WORDS = (0, 1, 1 << 31, 2**32 - 2, 2**32 - 1)


def rounded(values, dtype, words):
    raw = np.full(len(values) * dtype.bits // 8, 0xAA, np.uint8)
    infinite = stochastic(values, dtype, np.asarray(words, np.uint32), raw)
    return raw.tobytes(), infinite


def held(values, dtype, words):
    """The rounded values."""
    return np.frombuffer(rounded(values, dtype, words)[0], NUMPY[dtype]).astype(np.float64)


@pytest.mark.skipif(compiled is None, reason="there is nothing to compare")
@pytest.mark.parametrize("dtype", COMPILED_DTYPES, ids=lambda dtype: dtype.value)
@given(data=st.data(), length=lengths)
@settings(deadline=None, max_examples=40)
def test_any_values_round_alike(dtype, data, length):
    values = decoded(data.draw(spans(length=length)))
    rng = np.random.default_rng(length)
    words = rng.integers(0, 1 << 32, length, np.uint32)
    left, right = both(rounded, values, dtype, words)
    assert left == right


@pytest.mark.skipif(compiled is None, reason="there is nothing to compare")
@pytest.mark.parametrize("dtype", COMPILED_DTYPES, ids=lambda dtype: dtype.value)
@pytest.mark.parametrize("narrow", [DType.BF16, DType.F16], ids=lambda dtype: dtype.value)
def test_every_half_and_what_lies_beside_it_rounds_alike(dtype, narrow):
    with np.errstate(all="ignore"):
        halves = np.arange(1 << 16, dtype=np.uint16).view(NUMPY[narrow]).astype(np.float64)
        ties = (halves + np.roll(halves, 1)) / 2
        for near in (halves, ties, np.nextafter(halves, np.inf), np.nextafter(ties, -np.inf)):
            words = np.resize(np.array(ALL_WORDS, np.uint32), len(near))
            left, right = both(rounded, near, dtype, words)
            assert left == right


def by_definition(value, word, grid):
    """The neighbour that a finite value becomes, in exact arithmetic."""
    magnitude = abs(value)
    lower = grid[np.searchsorted(grid, magnitude, side="right") - 1]
    if lower == magnitude:
        return value
    upper = grid[np.searchsorted(grid, magnitude, side="right")]
    share = (Fraction(magnitude) - Fraction(lower)) / (Fraction(upper) - Fraction(lower))
    return np.copysign(upper if word < share * 2**32 // 1 else lower, value)


@pytest.mark.parametrize(
    "dtype", [d for d in NARROW if d is not DType.F32], ids=lambda dtype: dtype.value
)
def test_a_value_becomes_the_neighbour_that_its_word_says(dtype):
    every = np.arange(1 << dtype.bits, dtype=f"u{dtype.bits // 8}").view(NUMPY[dtype])
    with np.errstate(all="ignore"):
        grid = np.unique(np.abs(every.astype(np.float64)))
    grid = grid[np.isfinite(grid)]
    rng = np.random.default_rng(6)
    below = rng.integers(0, len(grid) - 1, 1500)
    values = grid[below] + rng.random(1500) * (grid[below + 1] - grid[below])
    values *= rng.choice([-1.0, 1.0], 1500)
    values[:9] = [5e-324, -1e-320, 1e-45, grid[1] / 3, -grid[-1], grid[-1], 0.0, -0.0, grid[1]]
    words = rng.integers(0, 1 << 32, 1500, np.uint32)
    words[::3] = np.resize(np.array(ALL_WORDS, np.uint32), 500)
    expected = [by_definition(*pair, grid) for pair in zip(values, words, strict=True)]
    assert held(values, dtype, words).tobytes() == np.array(expected).tobytes()


@DTYPES
def test_what_the_dtype_holds_never_changes(dtype):
    rng = np.random.default_rng(8)
    span = stored(oddities(rng, 4000), dtype)
    for word in ALL_WORDS:
        raw, infinite = rounded(decoded(span), dtype, np.full(4000, word))
        kept = np.frombuffer(raw, NUMPY[dtype]).astype(np.float64)
        assert np.array_equal(kept, decoded(span), equal_nan=True)
        assert np.array_equal(np.signbit(kept[kept == 0]), np.signbit(decoded(span)[kept == 0]))
        assert infinite == 0


@DTYPES
def test_beyond_the_largest_value_rounding_is_to_nearest(dtype):
    largest = float(ml_dtypes.finfo(NUMPY[dtype]).max)
    gap = largest - float(np.nextafter(NUMPY[dtype](largest), NUMPY[dtype](0)))
    shares = np.array([2.0**-30, 0.25, 0.5 - 2.0**-20, 0.5, 0.5 + 2.0**-20, 0.75, 1.0, 3.0])
    values = np.concatenate([largest + gap * shares, [1e300, np.inf, -np.inf, np.nan]])
    values = np.concatenate([values, -values])
    nearest = np.empty(len(values) * dtype.bits // 8, np.uint8)
    with np.errstate(over="ignore"):
        overflowed, _ = encode(values.copy(), dtype, nearest, scratch=Scratch(1))
    assert overflowed > 0
    for word in ALL_WORDS:
        assert rounded(values, dtype, np.full(len(values), word)) == (
            nearest.tobytes(),
            overflowed,
        )


@DTYPES
def test_rounding_is_right_on_average(dtype):
    rng = np.random.default_rng(9)
    words = rng.integers(0, 1 << 32, 1 << 16, np.uint32)
    for value in (1.0 + 1 / 300, -0.0171, 2.0**-13.3):
        found = held(np.full(1 << 16, value), dtype, words)
        assert len(np.unique(found)) == 2
        gap = np.ptp(found)
        assert found.mean() == pytest.approx(value, abs=gap * 4 / 2 / 256)  # four deviations


def test_float64_is_copied():
    values = np.append(np.random.default_rng(1).standard_normal(70), [np.inf, -0.0])
    raw, infinite = rounded(values, DType.F64, np.zeros(72))
    assert (raw, infinite) == (values.tobytes(), 0)
