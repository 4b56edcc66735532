"""Threads that take whole tensors, largest first, and make them span by span."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tensorsurgeon.checkpoint import Reader
from tensorsurgeon.execute.copying import Copier, digest_of_zeros
from tensorsurgeon.execute.staging import TensorWriter
from tensorsurgeon.plan import (
    OutputTensor,
    Plan,
    Stored,
    batches,
    buffers_needed,
    bytes_surveyed,
    surveyed_in,
)
from tensorsurgeon.processors import run_threads
from tensorsurgeon.specs import Progress
from tensorsurgeon.writing import Journal, ShardFiles

if TYPE_CHECKING:
    from tensorsurgeon.execute.evaluate import Surveys

Batch = tuple[OutputTensor, ...]
"""Tensors that are one and the same, in several places."""


class _StoppedError(Exception):
    """Raised in a thread when another one failed or the user interrupted."""


class Workers:
    """The tensors still to be made, and the threads that make them.

    Args:
        plan: what they are of.
        tensors: what is to be made.
        reader: what from.
        shards: where to.
        journal: knows which of the tensors are made already, and is told of the others.
        surveys: what operators have found of all tensors; filled where they have to look first.
    """

    def __init__(
        self,
        plan: Plan,
        tensors: Sequence[OutputTensor],
        reader: Reader,
        shards: ShardFiles,
        journal: Journal,
        surveys: "Surveys",
    ) -> None:
        self.plan = plan
        self.reader = reader
        self.shards = shards
        self.journal = journal
        self.surveys = surveys
        self.notes: list[str] = []
        self.updates: list[tuple[float, float]] = []
        self.compiled = True
        done = journal.digests
        waiting = [tensor for tensor in tensors if tensor.spec.name not in done]
        work = sorted(batches(waiting), key=lambda batch: -batch[0].bytes_read)
        self._waiting = deque(work)
        self._surveyed = [] if surveys or not surveyed_in(waiting) else surveyed_in(plan.tensors)
        self._total = sum(batch[0].bytes_read for batch in batches(tensors))
        self._before = max(0, self._total - self._bytes_to_read(tensors, work))
        self._buffers = buffers_needed((t.node, t.spec.dtype) for t in waiting)
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._done: list[int] = []

    def _bytes_to_read(self, tensors: Sequence[OutputTensor], work: Sequence[Batch]) -> int:
        """For what is still to be made, and again for surveys of what was made before."""
        coming = {tensor.spec.name for batch in work for tensor in batch}
        made = [tensor for tensor in tensors if tensor.spec.name not in coming]
        again = sum(bytes_surveyed(batch[0].node) for batch in batches(made))
        return sum(batch[0].bytes_read for batch in work) + again * bool(self._surveyed)

    def run(self, threads: int, progress: Progress) -> None:
        """Make every tensor, and raise the first thing that went wrong."""
        if self._buffers:
            # Imported before the threads start, or they would race for it.
            import tensorsurgeon.execute.compute  # noqa: F401
            from tensorsurgeon.kernels import COMPILED

            self.compiled = COMPILED
        self._done = [0] * threads

        def tick() -> None:
            progress(min(self._before + sum(self._done), self._total), self._total)

        def in_threads(work: Callable[[int], None]) -> None:
            run_threads(
                work, threads, name="tensors", tick=tick, stop=self._stop, hurry=self.reader.stop
            )
            if self._failures:
                raise self._failures[0]
            self._stop.clear()

        self._take_surveys(in_threads)
        in_threads(self._work)
        progress(self._total, self._total)

    def _take_surveys(self, in_threads: Callable[[Callable[[int], None]], None]) -> None:
        """Have operators look at all tensors that have to do so before they make any."""
        if not self._surveyed:
            return
        from tensorsurgeon.execute.survey import Surveyor

        for operator, nodes in self._surveyed:
            Surveyor(nodes, self.reader, self.surveys, self._guarded, in_threads).take(operator)

    def _guarded(self, index: int, work: Callable[[Callable[[int], None]], None]) -> None:
        """Run what one thread does; what it raises stops the others."""

        def step(count: int) -> None:
            self._done[index] += count
            if self._stop.is_set():
                raise _StoppedError

        try:
            work(step)
        except _StoppedError:
            pass
        except BaseException as error:
            self._failures.append(error)
            self._stop.set()
            self.reader.stop()
        finally:
            self.reader.finish()

    def _work(self, index: int) -> None:
        """What one thread does: take tensors that are one, make them, take the next."""

        def work(step: Callable[[int], None]) -> None:
            make = self._maker(step)
            while not self._stop.is_set():
                try:
                    batch = self._waiting.popleft()
                except IndexError:  # none is left
                    return
                digest = make(batch)
                self.reader.finish()
                for tensor in batch:
                    self.journal.add(tensor.spec.name, digest)

        self._guarded(index, work)

    def _maker(self, step: Callable[[int], None]) -> Callable[[Batch], str]:
        """A function that makes tensors with buffers of its own, and tells their digest."""
        writer = TensorWriter(self.shards)
        copier = Copier(self.reader, writer, step)
        compute: Callable[[Batch], str] | None = None
        if self._buffers:
            from tensorsurgeon.execute.compute import Computer

            compute = Computer(
                self.reader,
                writer,
                self._buffers,
                step,
                self.notes.append,
                surveys=self.surveys,
                updated=self.updates.append,
                seed=self.plan.seed if self.plan.rounding == "stochastic" else None,
                allow_nonfinite=self.plan.allow_nonfinite,
            ).compute

        def make(batch: Batch) -> str:
            tensor = batch[0]
            if not tensor.is_copied:
                assert compute is not None
                return compute(batch)
            if isinstance(tensor.node, Stored):
                return copier.copy(tensor.node.tensor, [(t.shard, t.offset) for t in batch])
            return digest_of_zeros(tensor.spec.nbytes, step)

        return make
