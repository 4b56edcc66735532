"""A part of a stored span as values, for arithmetic that is done in numpy."""

import numpy as np

from tensorsurgeon.kernels.arithmetic import scale
from tensorsurgeon.kernels.scratch import Scratch, Values
from tensorsurgeon.kernels.task_vectors import Stored
from tensorsurgeon.specs import SPAN, DType


def decoded(span: Stored, start: int, stop: int, *, scratch: Scratch) -> Values:
    """Elements [start, stop) of a span as new float64 values, exactly."""
    size = span.dtype.bits // 8
    raw = span.raw[start * size : stop * size]
    if span.dtype is DType.F64:
        return raw.view("<f8").astype(np.float64)
    out = np.empty(stop - start)
    for low in range(0, len(out), SPAN):  # scratch has no room for a row that is longer
        high = min(low + SPAN, len(out))
        part = raw[low * size : high * size]
        scale(part, span.dtype, 1.0, out[low:high], scratch=scratch)
    return out
