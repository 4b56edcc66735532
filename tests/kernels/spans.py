"""Spans of stored elements for tests, of random and odd values, and what both arithmetics give."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

from tensorsurgeon.kernels import task_vectors
from tensorsurgeon.kernels.task_vectors import Stored
from tensorsurgeon.specs import DType

NUMPY = {
    DType.BF16: ml_dtypes.bfloat16,
    DType.F16: np.float16,
    DType.F32: np.float32,
    DType.F64: np.float64,
    DType.F8_E4M3: ml_dtypes.float8_e4m3fn,
    DType.F8_E5M2: ml_dtypes.float8_e5m2,
}
COMPILED_DTYPES = [DType.BF16, DType.F16, DType.F32, DType.F64]

ODDITIES = np.array(
    [
        *(0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, -1e-320, 1.7e308, -3.5e38, 1e-40),
        *(2.0**-150, 2.0**-149, -(2.0**-133), 2.0**-134, 2.0**-24, 2.0**-25),
        *(-65504.0, 65520.0, 448.0, -464.0),
    ]
)
compiled = task_vectors._COMPILED
BLOCKS = (512, 1024, 1 << 14)
"""What the two implementations work on at a time."""

lengths = st.one_of(
    st.integers(0, 40),
    st.sampled_from([size + more for size in BLOCKS for more in (-1, 0, 1)]),
    st.integers(1, 5000),
)


def both(function, *arguments):
    """What the two implementations give, compiled first."""
    found = [function(*arguments)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_vectors, "_COMPILED", None)
        found.append(function(*arguments))
    return found


def stored(values, dtype):
    """Values as they are stored, rounded by someone else's code."""
    with np.errstate(all="ignore"):
        return Stored(np.asarray(values).astype(NUMPY[dtype]).view(np.uint8), dtype)


def decoded(span):
    """What a span holds, in float64, by someone else's code."""
    with np.errstate(all="ignore"):
        return span.raw.view(NUMPY[span.dtype]).astype(np.float64)


def ties(seed, length):
    """Values of which many are equal, though for their signs."""
    rng = np.random.default_rng(seed)
    return rng.integers(-6, 7, length) / 8.0


def oddities(rng, length):
    """Numbers of usual size, ties, and anything that could be misread."""
    kinds = rng.integers(0, 4, length)
    values = rng.standard_normal(length) * 0.02
    values = np.where(kinds == 1, rng.integers(-2, 3, length) / 64, values)
    return np.where((kinds == 2) & (rng.random(length) < 0.2), rng.choice(ODDITIES, length), values)


@st.composite
def spans(draw, *, length, dtypes=COMPILED_DTYPES):
    """A span of that length: numbers, oddities among them, or any bits at all."""
    dtype = draw(st.sampled_from(dtypes))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    kind = draw(st.sampled_from(["numbers", "oddities", "bits"]))
    if kind == "bits":
        return Stored(rng.integers(0, 256, length * dtype.bits // 8, np.uint8), dtype)
    return stored(
        rng.standard_normal(length) if kind == "numbers" else oddities(rng, length), dtype
    )
