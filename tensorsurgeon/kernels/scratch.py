"""The buffers one thread works in, made once; nothing is allocated while it works."""

import mmap
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from tensorsurgeon.specs import SPAN

Values = NDArray[np.float64]
"""(elements,) one span of a tensor while it is computed on."""

Raw = NDArray[np.uint8]
"""(bytes,) one span of a tensor as it is in a file."""

Words = NDArray[np.uint32]
"""(elements,) one span of 32-bit patterns, on the way to or from a stored dtype."""


class Scratch:
    """Buffers of one span each, handed out and taken back as a stack.

    Args:
        buffers: how many spans of values are needed at once.
    """

    def __init__(self, buffers: int) -> None:
        memory = mmap.mmap(-1, SPAN * (8 + 4 + 8 * buffers))
        with suppress(AttributeError, OSError):  # not every system has huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)  # a tenth less time, in fewer address look-ups
        self._memory = np.frombuffer(memory, np.uint8)
        self._cut = self._taken = 0
        self._buffers = [self._slice(SPAN * 8).view(np.float64) for _ in range(buffers)]
        self.raw: Raw = self._slice(SPAN * 8)
        self.words: Words = self._slice(SPAN * 4).view(np.uint32)

    def _slice(self, count: int) -> Raw:
        self._cut += count
        return self._memory[self._cut - count : self._cut]

    def take(self) -> Values:
        """A (SPAN,) buffer that nobody else uses until it is given back."""
        self._taken += 1
        return self._buffers[self._taken - 1]

    def give_back_all(self) -> None:
        """Return every buffer."""
        self._taken = 0

    def give_back(self, count: int = 1) -> None:
        """Return the buffers that were taken last."""
        self._taken -= count
