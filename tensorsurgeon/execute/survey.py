"""Operators that look at every tensor before they make any: their passes, in threads."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from tensorsurgeon.checkpoint import Reader
from tensorsurgeon.execute.evaluate import Evaluator, Surveys, survey_key
from tensorsurgeon.kernels import Scratch
from tensorsurgeon.operators import StreamedOperator
from tensorsurgeon.operators.streaming import Inputs
from tensorsurgeon.plan import Streamed, buffers_needed
from tensorsurgeon.specs import TensorSpec

T = TypeVar("T")

Step = Callable[[int], None]
"""Told the number of bytes after each read; may raise to stop the run."""


class Surveyor:
    """Runs an operator's survey.

    Args:
        nodes: the tensors it makes.
        reader: has the sources' files open.
        surveys: what is found goes here; what inner operators have found is there.
        guarded: runs a thread's work, given its number, and gives that its step.
        in_threads: runs a function in every thread, given its number.
    """

    def __init__(
        self,
        nodes: Sequence[Streamed],
        reader: Reader,
        surveys: Surveys,
        guarded: Callable[[int, Callable[[Step], None]], None],
        in_threads: Callable[[Callable[[int], None]], None],
    ) -> None:
        self._nodes = nodes
        self._reader = reader
        self._surveys = surveys
        self._guarded = guarded
        self._in_threads = in_threads
        self._specs = [
            TensorSpec(name=node.name, dtype=node.dtype, shape=node.shape) for node in nodes
        ]

    def take(self, operator: StreamedOperator) -> None:
        """Have the operator look, and keep what it found."""
        elements = sum(spec.elements for spec in self._specs)
        found = operator.survey(elements, len(self._nodes), self._each)
        for node, own in zip(self._nodes, found, strict=True):
            self._surveys[survey_key(node)] = own

    def _each(self, of: Callable[[Inputs], T], fold: Callable[[int, T], None]) -> None:
        """One pass over all tensors, the largest first."""
        sizes = [spec.elements for spec in self._specs]
        waiting = deque(sorted(range(len(sizes)), key=lambda index: -sizes[index]))
        folding = threading.Lock()

        def work(step: Step) -> None:
            # What is there to note is noted when the tensors are made.
            scratch = Scratch(buffers_needed((node, spec.dtype) for node, spec in self._jobs()))
            evaluator = Evaluator(self._reader, scratch, step, lambda _: None, self._surveys)
            while waiting:
                try:
                    index = waiting.popleft()
                except IndexError:  # another thread took the last one
                    return
                with np.errstate(all="ignore"):
                    found = evaluator.look_at(self._nodes[index], self._specs[index], of)
                self._reader.finish()
                with folding:
                    fold(index, found)
                step(0)

        self._in_threads(lambda thread: self._guarded(thread, work))

    def _jobs(self) -> list[tuple[Streamed, TensorSpec]]:
        return list(zip(self._nodes, self._specs, strict=True))
