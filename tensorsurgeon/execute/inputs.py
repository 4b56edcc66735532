"""What a streamed operator sees of its inputs while a run goes on."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tensorsurgeon.kernels import Raw, Scratch, Values
from tensorsurgeon.kernels.blocks import decoded
from tensorsurgeon.kernels.random import PER_COUNTER, Key, fill_words, key_of
from tensorsurgeon.kernels.task_vectors import Stored as Span
from tensorsurgeon.plan import Streamed
from tensorsurgeon.specs import DType

if TYPE_CHECKING:
    from tensorsurgeon.execute.evaluate import Ready

ReadSpan = Callable[["Ready", int, Values], Span]
"""Reads a span of an input into a buffer, as it is stored where it is."""


class NodeInputs:
    """The inputs of a streamed node; see `operators.Inputs`.

    Args:
        node: what is made.
        ready: its inputs, prepared.
        read: reads a span of one.
        scratch: this thread's buffers; one for each input is held until the tensor is made.
        note: told what the operator has to say.
        surveyed: what the operator's survey found for this tensor.
    """

    def __init__(
        self,
        node: Streamed,
        ready: tuple["Ready", ...],
        read: ReadSpan,
        scratch: Scratch,
        note: Callable[[str], None],
        surveyed: object = None,
    ) -> None:
        self.shape = node.shape
        self.elements = int(np.prod(node.shape, dtype=np.int64))
        self.count = len(ready)
        self.note = note
        self.surveyed: Any = surveyed
        self._ready = ready
        self._read = read
        self._scratch = scratch
        self._buffers = [scratch.take() for _ in ready]
        self._spans: list[Span | None] = [None] * len(ready)
        self._starts = [0] * len(ready)
        self._watched, self._seen = range(0), 0
        self._kept: Raw = np.empty(0, np.uint8)
        self._words: list[NDArray[np.uint32]] = [np.empty(0, np.uint32) for _ in ready]
        self._keys: list[Key] = [key_of(node.seed, node.name, str(inner)) for inner in node.inputs]

    def stored(self, index: int, start: int, stop: int) -> Span:
        """A span of one, in its buffer."""
        if stop - start > len(self._buffers[index]):  # a row that is longer than a span
            self._buffers[index] = np.empty(stop - start)
        span = self._read(self._ready[index], start, self._buffers[index][: stop - start])
        self._spans[index], self._starts[index] = span, start
        if index == 0:
            self._keep()
        return span

    def held(self, index: int) -> Span:
        """The span of one that was read last."""
        span = self._spans[index]
        assert span is not None
        return span

    def watch(self, start: int, stop: int, buffer: Values) -> None:
        """Keep elements [start, stop) of the first input, as far as they are read from now on.

        Those at the beginning may lie in what was read last.
        """
        self._watched, self._seen, self._kept = range(start, stop), start, buffer.view(np.uint8)
        self._keep()

    def watched(self) -> Span | None:
        """These elements, if all of them were read."""
        span, wanted = self._spans[0], self._watched
        if span is not None and (self._starts[0], span.elements) == (wanted.start, len(wanted)):
            return span
        if span is None or self._seen < wanted.stop:
            return None
        return Span(self._kept[: len(wanted) * span.dtype.bits // 8], span.dtype)

    def _keep(self) -> None:
        span, start, wanted = self._spans[0], self._starts[0], self._watched
        if span is None or (start, span.elements) == (wanted.start, len(wanted)):
            return
        stop = min(start + span.elements, wanted.stop)
        if start <= self._seen < stop:
            size = span.dtype.bits // 8
            to = slice((self._seen - wanted.start) * size, (stop - wanted.start) * size)
            self._kept[to] = span.raw[(self._seen - start) * size : (stop - start) * size]
            self._seen = stop

    def block(self, index: int, start: int, stop: int) -> Values:
        """Values of the span that was read last."""
        return decoded(self.held(index), start, stop, scratch=self._scratch)

    def words(self, index: int, start: int, stop: int) -> NDArray[np.uint32]:
        """Random words of one input."""
        before = start % PER_COUNTER
        count = before + stop - start
        if count > len(self._words[index]):
            self._words[index] = np.empty(count, np.uint32)
        fill_words(self._keys[index], start - before, self._words[index][:count])
        return self._words[index][before:count]


def as_values(buffer: Values) -> Span:
    """A buffer of values as a span."""
    return Span(buffer.view(np.uint8), DType.F64)
