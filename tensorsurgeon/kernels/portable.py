"""The arithmetic on spans in numpy: what it is, and what runs where nothing was compiled.

Values are float64, so decoding is exact. Encoding rounds to nearest, ties to even, and makes every
NaN the one quiet NaN. To bfloat16 it goes by way of float32, whose rounding moves a value only if
it lies within 2^-17 of a unit in the last place from a tie.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorsurgeon.kernels.scratch import Raw, Scratch, Values, Words
from tensorsurgeon.specs import DType

_HALF = np.uint32(16)
_ONE = np.uint32(1)
_BELOW_TIE = np.uint32(0x7FFF)
_QUIET_NAN = np.float32("nan")

COLUMNS = 512
"""A span's sum is taken in so many columns, which are then folded in halves: an order of its own,
since that of numpy's sums and of BLAS is theirs to change."""

_NUMPY = {DType.F16: "<f2", DType.F32: "<f4", DType.F64: "<f8"}

_BF16_END = float.fromhex("0x1.ffp127")
"""From here on a float32 rounds to infinity: half a unit above the largest bfloat16."""

_LARGEST = {
    DType.F64: float("inf"),
    DType.F32: float(np.finfo(np.float32).max),
    DType.BF16: float.fromhex("0x1.fep127"),
    DType.F16: 65504.0,
    DType.F8_E4M3: 448.0,
    DType.F8_E5M2: 57344.0,
}
"""The largest value of each dtype that no finite one can exceed on the way to it."""


def scale(
    raw: Raw, dtype: DType, weight: float, out: Values, *, add: bool, scratch: Scratch
) -> None:
    """Set a span to, or add to it, weight times stored values; see `kernels.scale`."""
    values = scratch.take()[: len(out)] if add else out
    if dtype is DType.BF16:
        words = scratch.words[: len(out)]
        np.copyto(words, raw.view("<u2"))
        np.left_shift(words, _HALF, out=words)
        np.copyto(values, words.view(np.float32))
    else:
        np.copyto(values, raw.view(_numpy_dtype(dtype)), casting="unsafe")
    if weight != 1.0:
        np.multiply(values, weight, out=values)
    if add:
        np.add(out, values, out=out)
        scratch.give_back()


def dot(left: Values, right: Values, *, scratch: Scratch) -> float:
    """The dot product of two spans; see `kernels.dot`."""
    product = scratch.take()[: len(left)]
    np.multiply(left, right, out=product)
    rows, rest = divmod(len(product), COLUMNS)
    # Along the first axis whole rows are added one after the other.
    columns = np.add.reduce(product[: rows * COLUMNS].reshape(rows, COLUMNS), axis=0, initial=0.0)
    columns[:rest] += product[rows * COLUMNS :]
    scratch.give_back()
    while len(columns) > 1:
        half = len(columns) // 2
        columns = columns[:half] + columns[half:]
    return float(columns[0])


def encode(values: Values, dtype: DType, raw: Raw, *, scratch: Scratch) -> tuple[int, int]:
    """Stored bytes of values, which are overwritten; see `kernels.encode`."""
    if dtype is DType.BF16:
        return _encode_bf16(values, raw, scratch.words[: len(values)])
    stored = raw.view(_numpy_dtype(dtype))
    np.copyto(stored, values, casting="unsafe")
    if _within(values, _LARGEST[dtype]) and dtype is not DType.F64:
        return 0, 0
    stored[np.isnan(values)] = np.nan
    finite = np.isfinite(values)
    lost = 0
    if dtype is not DType.F64:
        lost = int(np.count_nonzero(finite & ~np.isfinite(stored.astype(np.float32))))
    return lost, int(np.count_nonzero(~finite))


def _encode_bf16(values: Values, raw: Raw, words: Words) -> tuple[int, int]:
    floats, lost, nonfinite = words.view(np.float32), 0, 0
    np.copyto(floats, values, casting="same_kind")
    if not _within(floats, _LARGEST[DType.BF16]):
        # Rounding would carry into the exponent, and in a NaN from its payload into the sign.
        beyond = np.abs(floats) >= _BF16_END
        finite = np.isfinite(values)
        lost, nonfinite = int(np.count_nonzero(beyond & finite)), int(np.count_nonzero(~finite))
        np.copyto(floats, np.copysign(np.inf, floats), where=beyond)
        floats[np.isnan(floats)] = _QUIET_NAN
    # A number is even if its lowest kept bit is 0: then a tie must not carry.
    lowest = values.view(np.uint32)[: len(words)]
    np.right_shift(words, _HALF, out=lowest)
    np.bitwise_and(lowest, _ONE, out=lowest)
    np.add(lowest, _BELOW_TIE, out=lowest)
    np.add(words, lowest, out=words)
    np.right_shift(words, _HALF, out=words)
    np.copyto(raw.view("<u2"), words, casting="unsafe")
    return lost, nonfinite


def _within(values: NDArray[np.floating[Any]], largest: float) -> bool:
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
