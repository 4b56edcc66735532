"""Stored bytes to values and back; the one place where anything is rounded.

Every decoding is exact, but for float64 read as float32. Encoding rounds once, to nearest, ties
to even, and keeps NaN a NaN.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorsurgeon.kernels.scratch import Raw, Values
from tensorsurgeon.specs import DType

Words = NDArray[np.uint32]

_HALF = np.uint32(16)
_ONE = np.uint32(1)
_BELOW_TIE = np.uint32(0x7FFF)
_QUIET_NAN = np.float32("nan")

_NUMPY = {DType.F16: "<f2", DType.F32: "<f4", DType.F64: "<f8"}

_LARGEST = {
    DType.F32: float(np.finfo(np.float32).max),
    DType.F16: 65504.0,
    DType.F8_E4M3: 448.0,
    DType.F8_E5M2: 57344.0,
}
"""The largest finite value of each dtype that can overflow."""


def decode(raw: Raw, dtype: DType, out: Values, words: Words) -> None:
    """Values of stored bytes.

    Args:
        raw: (n * itemsize,) bytes as they are in the file, little-endian.
        dtype: what they are.
        out: (n,) float32 or float64, filled.
        words: (n,) scratch.
    """
    if dtype is DType.BF16:
        bits = out.view(np.uint32) if out.dtype == np.float32 else words
        np.copyto(bits, raw.view("<u2"))
        np.left_shift(bits, _HALF, out=bits)
        if bits is words:
            np.copyto(out, words.view(np.float32))
    else:
        np.copyto(out, raw.view(_numpy_dtype(dtype)), casting="unsafe")


def encode(values: Values, dtype: DType, raw: Raw, words: Words) -> int:
    """Stored bytes of values, rounded once, to nearest even.

    Args:
        values: (n,) float32 or float64; overwritten.
        dtype: what to store.
        raw: (n * itemsize,) bytes, filled.
        words: (n,) scratch.

    Returns:
        How many finite values became infinite or NaN, since the dtype cannot hold them.
    """
    if dtype is DType.BF16:
        assert values.dtype == np.float32
        _encode_bf16(values, raw, words)
        return 0  # its exponent is float32's
    stored = raw.view(_numpy_dtype(dtype))
    fits = dtype is DType.F64 or _within(values, _LARGEST[dtype])
    np.copyto(stored, values, casting="unsafe")
    if fits:
        return 0
    return int(np.count_nonzero(np.isfinite(values) & ~np.isfinite(stored.astype(np.float32))))


def _encode_bf16(values: Values, raw: Raw, words: Words) -> None:
    bits = values.view(np.uint32)
    if np.isnan(np.maximum.reduce(values, initial=-np.inf)):
        # Rounding could carry a NaN's payload into the sign, so it loses the payload first.
        values[np.isnan(values)] = _QUIET_NAN
    np.right_shift(bits, _HALF, out=words)
    np.bitwise_and(words, _ONE, out=words)
    np.add(words, _BELOW_TIE, out=words)
    np.add(bits, words, out=bits)
    np.right_shift(bits, _HALF, out=bits)
    np.copyto(raw.view("<u2"), bits, casting="unsafe")


def _within(values: Values, largest: float) -> bool:
    """Whether all values are numbers of at most this magnitude."""
    return bool(
        np.maximum.reduce(values, initial=0) <= largest
        and np.minimum.reduce(values, initial=0) >= -largest
    )


def _numpy_dtype(dtype: DType) -> np.dtype[Any]:
    if dtype in _NUMPY:
        return np.dtype(_NUMPY[dtype])
    import ml_dtypes

    eight_bits: Any = ml_dtypes.float8_e4m3fn if dtype is DType.F8_E4M3 else ml_dtypes.float8_e5m2
    found: np.dtype[Any] = np.dtype(eight_bits)
    return found
