"""The buffers one thread works in, made once; nothing is allocated while it works."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorsurgeon.specs import SPAN

Values = NDArray[np.floating[Any]]
"""(elements,) float32 or float64: one span of a tensor while it is computed on."""

Raw = NDArray[np.uint8]
"""(bytes,) one span of a tensor as it is in a file."""

Doubles = NDArray[np.float64]
"""(elements,) one span in float64, for dot products."""


class Scratch:
    """Buffers of one span each, handed out and taken back as a stack.

    Args:
        values: span buffers of values needed at once.
        doubles: span buffers of float64 needed at once.
        wide: whether some tensor is computed in float64, else all are in float32.
    """

    def __init__(self, *, values: int, doubles: int, wide: bool) -> None:
        self.raw = np.empty(SPAN * 8, np.uint8)
        self.words = np.empty(SPAN, np.uint32)
        self.doubles: list[Doubles] = [np.empty(SPAN, np.float64) for _ in range(doubles)]
        self._buffers = [np.empty(SPAN * (8 if wide else 4), np.uint8) for _ in range(values)]
        self._taken = 0
        self.wide = wide

    def set_precision(self, *, wide: bool) -> None:
        """Hand out float64 from now on, or float32."""
        assert self._taken == 0
        self.wide = wide

    def take(self) -> Values:
        """A (SPAN,) buffer that nobody else uses until it is given back."""
        buffer = self._buffers[self._taken]
        self._taken += 1
        if self.wide:
            return buffer.view(np.float64)
        return buffer.view(np.float32)[:SPAN]

    def give_back(self) -> None:
        """Return the buffer that was taken last."""
        self._taken -= 1
