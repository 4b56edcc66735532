"""Task vectors on spans: ranks counted, elements pruned, signs elected, all of it put together.

A task vector's element is model minus base, in float64; its rank is its magnitude rounded to
float32, as a word of 31 bits: floats without a sign are ordered as their bits are. Compiled where
this was built with a C compiler, else in numpy, with the same bits.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from tensorsurgeon.kernels.portable import decode
from tensorsurgeon.kernels.scratch import Raw, Values
from tensorsurgeon.specs import DType

HALVES = 1 << 16
"""Values of one half of a rank's word."""

ALL = 0xFFFFFFFF
"""A rank above all others."""

Counts = NDArray[np.int64]
"""(65536,) how many ranks have each value of one half."""

_REVISION = 1
"""Of the compiled arithmetic; see there."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A span as it is stored.

    Attributes:
        raw: (n * itemsize,) bytes, little-endian.
        dtype: bfloat16, float16, float32 or float64.
    """

    raw: Raw
    dtype: DType


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """Which elements of a task vector are kept.

    By rank those above `low` and not above `high`; of those at `high` the first `skip` are left
    out, of those at `low` the first `take` are kept. By chance, where there are `words`, those
    whose word is smaller than `below`.

    Attributes:
        low: a rank.
        take: of elements at `low`, in order.
        high: a rank.
        skip: of elements at `high`, in order.
        words: (n,) uint32, random.
        below: between 0 and 2^32 - 1.
    """

    low: int = 0
    take: int = 0
    high: int = ALL
    skip: int = 0
    words: NDArray[np.uint32] | None = None
    below: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A model of `combine`.

    Attributes:
        span: the model's, not the difference.
        weight: of its task vector.
        scale: what is kept of it is multiplied by.
        cut: what is kept.
    """

    span: Stored
    weight: float
    scale: float = 1.0
    cut: Cut = Cut()


@dataclass(frozen=True, kw_only=True, slots=True)
class Together:
    """How task vectors become one.

    Attributes:
        elect: at each element only those count whose sign is that of the sum; 0 counts as positive.
        normalize: divide by the weights of those that count; where they sum to 0, by 1.
        factor: of the whole.
    """

    elect: bool
    normalize: bool
    factor: float
