"""What the arithmetic of task vectors is told: spans, cuts, weights."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tensorsurgeon.kernels.scratch import Raw
from tensorsurgeon.specs import DType

HALVES = 1 << 16
"""Values of one half of a rank's word."""

ALL = 0xFFFFFFFF
"""A rank above all others."""

Counts = NDArray[np.int64]
"""(HALVES,) how many ranks have each value of one half."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A span as it is stored.

    Attributes:
        raw: (n * itemsize,) bytes, little-endian.
        dtype: any that is computable.
    """

    raw: Raw
    dtype: DType

    @property
    def elements(self) -> int:
        """How many there are."""
        return len(self.raw) * 8 // self.dtype.bits


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """Which elements of a task vector are kept; by default all.

    By rank those above `low` and not above `high`; of those at `high` the first `skip` are left
    out, of those at `low` the first `take` are kept; where the two are one rank, the first that are
    not skipped. By chance, where there are `words`, those whose word is smaller than their limit.

    Attributes:
        low: a rank.
        take: of elements at `low`, in order.
        high: a rank.
        skip: of elements at `high`, in order.
        words: (n,) uint32, random.
        below: the limit of all words, between 0 and 2^32 - 1.
        limits: (n,) uint32, the limit of each word instead.
    """

    low: int = 0
    take: int = 0
    high: int = ALL
    skip: int = 0
    words: NDArray[np.uint32] | None = None
    below: int = 0
    limits: NDArray[np.uint32] | None = None


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
        elect: whether at each element only those count whose sign is that of the sum, where a sum
            of 0 is a positive one. What was pruned away has no sign.
        normalize: whether to divide: by the sum of the weights of those that count, or, where none
            are elected, by `divisor`; where that is 0, by 1.
        divisor: the sum of all weights, or what stands for it.
        factor: of the whole.
    """

    elect: bool
    normalize: bool
    divisor: float
    factor: float
