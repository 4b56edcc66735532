"""Stochastic rounding in numpy: what it is, and what runs where nothing was compiled."""

import numpy as np
from numpy.typing import NDArray

from tensorsurgeon.kernels import portable
from tensorsurgeon.kernels.portable_task_vectors import blocks
from tensorsurgeon.kernels.scratch import Raw, Scratch, Values
from tensorsurgeon.specs import DType

_FORMATS = {
    DType.F32: (23, -126, float(np.finfo(np.float32).max)),
    DType.BF16: (7, -126, float.fromhex("0x1.fep127")),
    DType.F16: (10, -14, 65504.0),
    DType.F8_E4M3: (3, -6, 448.0),
    DType.F8_E5M2: (2, -14, 57344.0),
}
"""Bits of the fraction, the exponent of the smallest normal value, the largest finite value."""


def stochastic(values: Values, dtype: DType, words: NDArray[np.uint32], raw: Raw) -> int:
    """Stored bytes of values; see `task_vectors.stochastic`."""
    scratch, lost, size = Scratch(0), 0, dtype.bits // 8
    with np.errstate(all="ignore"):
        for start, stop in blocks(len(values)):
            block = _rounded(values[start:stop], dtype, words[start:stop])
            stored = raw[start * size : stop * size]
            lost += portable.encode(block, dtype, stored, scratch=scratch)[0]
    return lost


def _rounded(values: Values, dtype: DType, words: NDArray[np.uint32]) -> Values:
    """Values that the dtype holds exactly, or ones beyond its largest, as they were."""
    if dtype is DType.F64:
        return values.copy()
    fraction, least, largest = _FORMATS[dtype]
    magnitudes = np.abs(values)
    exponents = np.maximum(magnitudes.view(np.int64) >> 52, least + 1023)
    gaps = ((exponents - fraction) << 52).view(np.float64)
    # Both are exact, since a gap is a power of two.
    scaled = magnitudes / gaps
    lower = np.floor(scaled)
    up = np.floor((scaled - lower) * 2.0**32) > words
    rounded = np.copysign((lower + up) * gaps, values)
    return np.where(magnitudes > largest, values, rounded)
