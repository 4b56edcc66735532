"""How far results are from what they should be."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.methods.references import Float64

Array = NDArray[Any]


def float64(tensor: Array) -> Float64:
    """Its values, exactly."""
    return tensor.astype(np.float64)


def relative_error(found: Array, exact: Float64) -> float:
    """The largest error, relative to the largest value."""
    assert found.shape == exact.shape
    largest = np.abs(exact).max(initial=0.0)
    return float(np.abs(float64(found) - exact).max(initial=0.0) / (largest or 1.0))


def error(found: Array, exact: Float64) -> float:
    """The root of the mean square error."""
    return float(np.sqrt(np.mean((float64(found) - exact) ** 2)))


def assert_rounded_once(found: Array, exact: Float64, slack: float) -> None:
    """No other value of its dtype is nearer to the exact one.

    bfloat16 is reached by way of float32, which moves what lies within 2^-17 of a unit from a tie.

    Args:
        found: values that were rounded.
        exact: what they should have been before.
        slack: error they may have had before, relative to the largest.
    """
    assert found.shape == exact.shape
    here = np.abs(float64(found))
    # The bit patterns of floats count them away from zero.
    next_one = (found.view(f"u{found.itemsize}") + 1).astype(f"u{found.itemsize}")
    unit = np.abs(float64(next_one.view(found.dtype))) - here
    largest = np.abs(exact).max(initial=1e-300)
    assert np.all(np.abs(float64(found) - exact) <= (0.5 + 2**-17) * unit + slack * largest)


def units_apart(a: Array, b: Array) -> NDArray[np.int64]:
    """How many values of their dtype lie between each pair; zero and minus zero are one."""
    assert a.dtype == b.dtype

    def ordered(values: Array) -> NDArray[np.int64]:
        bits = 8 * values.itemsize
        words = values.reshape(-1).view(f"u{values.itemsize}").astype(np.int64)
        magnitude = words & ((1 << (bits - 1)) - 1)
        return np.where(words >> (bits - 1), -magnitude, magnitude)

    return np.abs(ordered(a) - ordered(b))
