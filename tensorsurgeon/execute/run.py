"""A plan carried out: threads take whole tensors, largest first, and work span by span."""

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tensorsurgeon.checkpoint import ShardReader
from tensorsurgeon.errors import OutputError
from tensorsurgeon.execute.copying import copy_tensor
from tensorsurgeon.execute.output import OutputFolder, output_folder
from tensorsurgeon.plan import OutputTensor, Plan, Stored, Zeros, scratch_needs

if TYPE_CHECKING:
    from tensorsurgeon.kernels import Scratch

Progress = Callable[[int, int], None]
"""Called a few times a second with bytes done and bytes in all."""

_TICK = 0.1
"""Seconds between two calls of Progress."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run did.

    Attributes:
        path: the folder it made.
        seconds: wall time, flushes included.
        threads: how many it used.
        tensors_copied: tensors written without arithmetic.
        tensors_computed: all others.
        notes: what operators had to say, and for how many tensors.
    """

    path: Path
    seconds: float
    threads: int
    tensors_copied: int
    tensors_computed: int
    notes: tuple[str, ...]


def run_plan(plan: Plan, final: Path, *, threads: int, progress: Progress | None = None) -> Result:
    """Write what a plan describes.

    Args:
        plan: the plan.
        final: the folder to make; replaced where it is there (see `check_destination`).
        threads: how many tensors are worked on at a time.
        progress: told how far it is.

    Raises:
        CheckpointError: a source cannot be read any more.
        OutputError: writing failed, or a value does not fit the output's dtype.
        KeyboardInterrupt: after the threads have stopped. Nothing is left of the output.
    """
    began = time.monotonic()
    with ShardReader(plan.paths()) as reader, output_folder(final) as output:
        output.lay_down(plan.shards)
        work = _Work(plan, reader, output)
        work.run(min(threads, max(len(plan.tensors), 1)), progress or _silent)
        output.write_config(plan)
        output.finish()
    return Result(
        path=final,
        seconds=time.monotonic() - began,
        threads=threads,
        tensors_copied=sum(tensor.is_copied for tensor in plan.tensors),
        tensors_computed=sum(not tensor.is_copied for tensor in plan.tensors),
        notes=tuple(
            f"{note} ({count} tensors)" for note, count in sorted(Counter(work.notes).items())
        ),
    )


def _silent(_done: int, _total: int) -> None:
    """Progress that nobody looks at."""


class _StoppedError(Exception):
    """Raised in a thread when another one failed or the user interrupted."""


class _Work:
    """The tensors still to be made, and what the threads share."""

    def __init__(self, plan: Plan, reader: ShardReader, output: OutputFolder) -> None:
        self.reader = reader
        self.output = output
        self.notes: list[str] = []
        self._total = plan.bytes_read
        self._waiting = deque(sorted(plan.tensors, key=lambda tensor: -tensor.bytes_read))
        self._needs = scratch_needs(plan.jobs())
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._done: list[int] = []

    def run(self, threads: int, progress: Progress) -> None:
        """Make every tensor, and raise the first thing that went wrong."""
        if self._needs is not None:
            # Imported before the threads start, or they would race for it.
            import tensorsurgeon.execute.evaluate  # noqa: F401

        self._done = [0] * threads
        workers = [
            threading.Thread(target=self._work, args=(index,), name=f"tensors-{index}")
            for index in range(threads)
        ]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                while worker.is_alive():
                    worker.join(_TICK)
                    progress(sum(self._done), self._total)
        finally:
            self._stop.set()
            for worker in workers:
                if worker.ident is not None:
                    worker.join()
        if self._failures:
            raise self._failures[0]
        progress(self._total, self._total)

    def _work(self, index: int) -> None:
        def step(count: int) -> None:
            self._done[index] += count
            if self._stop.is_set():
                raise _StoppedError

        try:
            scratch = self._make_scratch()
            while self._waiting and not self._stop.is_set():
                try:
                    tensor = self._waiting.popleft()
                except IndexError:  # another thread took the last one
                    return
                self._make(tensor, scratch, step)
        except _StoppedError:
            pass
        except BaseException as error:
            self._failures.append(error)
            self._stop.set()

    def _make_scratch(self) -> "Scratch | None":
        if self._needs is None:
            return None
        from tensorsurgeon.kernels import Scratch

        needs = self._needs
        return Scratch(values=needs.values, doubles=needs.doubles, wide=needs.wide)

    def _make(
        self, tensor: OutputTensor, scratch: "Scratch | None", step: Callable[[int], None]
    ) -> None:
        if tensor.is_copied:
            if isinstance(tensor.node, Stored):
                place = (tensor.shard, tensor.offset)
                copy_tensor(tensor.node.tensor, self.reader, self.output, place, step)
            else:
                assert isinstance(tensor.node, Zeros)  # a new file is zero where nothing is written
            return
        assert scratch is not None
        self._compute(tensor, scratch, step)

    def _compute(
        self, tensor: OutputTensor, scratch: "Scratch", step: Callable[[int], None]
    ) -> None:
        import numpy as np

        from tensorsurgeon.execute.evaluate import Evaluator, spans
        from tensorsurgeon.kernels import encode

        evaluator = Evaluator(self.reader, scratch, step, self.notes.append)
        elements, dtype = tensor.spec.elements, tensor.spec.dtype
        size = dtype.bits // 8
        scratch.set_precision(wide=dtype.wide)
        lost = 0
        with np.errstate(all="ignore"):
            node = evaluator.prepare(tensor.node, elements)
            buffer = scratch.take()
            for start, stop in spans(elements):
                values, raw = buffer[: stop - start], scratch.raw[: (stop - start) * size]
                evaluator.read(node, start, values)
                lost += encode(values, dtype, raw, scratch.words[: stop - start])
                at = tensor.offset + start * size
                self.output.write(tensor.shard, at, raw.data)
                self.output.start_write_back(tensor.shard, at, len(raw))
            scratch.give_back()
        if lost:
            raise OutputError(
                f"tensor '{tensor.spec.name}': {lost} values are too large for {dtype.value}",
                fix="choose a wider output: dtype",
            )


def default_threads() -> int:
    """As many as the processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
