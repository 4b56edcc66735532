"""The arithmetic on spans: compiled where this was built with a C compiler, else in numpy.

Both give the same bits, so which one runs is a matter of speed alone. The environment variable
TENSORSURGEON_KERNELS=numpy chooses numpy.
"""

import os
from types import ModuleType

from tensorsurgeon.kernels import portable
from tensorsurgeon.kernels.scratch import Raw, Scratch, Values
from tensorsurgeon.specs import DType

_REVISION = 2
"""Of the compiled arithmetic; see there."""


def _load() -> ModuleType | None:
    if os.environ.get("TENSORSURGEON_KERNELS") == "numpy":
        return None
    try:
        from tensorsurgeon.kernels import _compiled
    except ImportError:  # no compiler, or a system it was not built for
        return None
    # What an earlier version was built to may still lie beside this one.
    return _compiled if getattr(_compiled, "REVISION", 0) == _REVISION else None


_COMPILED = _load()

COMPILED = _COMPILED is not None
"""Whether the compiled arithmetic is used."""

_CODES = {DType.BF16: 0, DType.F16: 1, DType.F32: 2, DType.F64: 3}
"""What the compiled arithmetic calls the dtypes it knows; the others are left to numpy."""


def scale(
    raw: Raw, dtype: DType, weight: float, out: Values, *, add: bool = False, scratch: Scratch
) -> None:
    """Set a span to weight times stored values, or add that to it.

    The product is rounded to float64, then the sum; they are never fused.

    Args:
        raw: (n * itemsize,) bytes as they are in the file, little-endian.
        dtype: what they are.
        weight: the factor; 1 decodes.
        out: (n,) float64.
        add: whether to add to what is there.
        scratch: buffers; one is used meanwhile.
    """
    if _COMPILED is not None and dtype in _CODES:
        _COMPILED.scale(raw, _CODES[dtype], weight, add, out)
    else:
        portable.scale(raw, dtype, weight, out, add=add, scratch=scratch)


def encode(values: Values, dtype: DType, raw: Raw, *, scratch: Scratch) -> tuple[int, int]:
    """Stored bytes of values, rounded to nearest even: the one place where anything is rounded.

    Args:
        values: (n,) float64; may be overwritten.
        dtype: what to store.
        raw: (n * itemsize,) bytes, filled.
        scratch: buffers.

    Returns:
        How many finite values became infinite or NaN, since the dtype cannot hold them; and how
        many were infinite or NaN before.
    """
    if _COMPILED is not None and dtype in _CODES:
        found: tuple[int, int] = _COMPILED.encode(values, _CODES[dtype], raw)
        return found
    return portable.encode(values, dtype, raw, scratch=scratch)


def dot(left: Values, right: Values, *, scratch: Scratch) -> float:
    """The dot product of two spans, summed in an order that depends on their length alone.

    A product of two stored numbers of 24 significant bits or fewer is exact.

    Args:
        left: (n,) values.
        right: (n,) values; may be the same.
        scratch: buffers; one is used meanwhile.
    """
    if _COMPILED is not None:
        found: float = _COMPILED.dot(left, right)
        return found
    return portable.dot(left, right, scratch=scratch)
