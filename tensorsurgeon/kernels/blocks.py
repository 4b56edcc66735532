"""A part of a stored span as values, for arithmetic that is done in numpy."""

import numpy as np

from tensorsurgeon.kernels.arithmetic import scale
from tensorsurgeon.kernels.scratch import Scratch, Values
from tensorsurgeon.kernels.task_vectors import Stored
from tensorsurgeon.specs import DType


def decoded(span: Stored, start: int, stop: int, *, scratch: Scratch) -> Values:
    """Elements [start, stop) of a span as new float64 values, exactly."""
    size = span.dtype.bits // 8
    raw = span.raw[start * size : stop * size]
    if span.dtype is DType.F64:
        return raw.view("<f8").astype(np.float64)
    out = np.empty(stop - start)
    scale(raw, span.dtype, 1.0, out, scratch=scratch)
    return out
