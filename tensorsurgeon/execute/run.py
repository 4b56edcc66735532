"""A plan carried out: threads take whole tensors, largest first, and work span by span."""

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tensorsurgeon.checkpoint import ShardReader
from tensorsurgeon.execute.copying import Copier
from tensorsurgeon.execute.output import OutputFolder, output_folder
from tensorsurgeon.execute.staging import TensorWriter
from tensorsurgeon.plan import OutputTensor, Plan, Stored, buffers_needed

Progress = Callable[[int, int], None]
"""Called a few times a second with bytes done and bytes in all."""

MOST_THREADS = 9
"""The most threads used unless a user asks for more."""

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
        compiled: whether compiled arithmetic computed them, rather than numpy.
        notes: what operators had to say, and for how many tensors.
    """

    path: Path
    seconds: float
    threads: int
    tensors_copied: int
    tensors_computed: int
    compiled: bool
    notes: tuple[str, ...]


def run_plan(
    plan: Plan,
    final: Path,
    *,
    threads: int,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Write what a plan describes.

    Args:
        plan: the plan.
        final: the folder to make (see `check_destination`).
        threads: how many tensors are worked on at a time.
        overwrite: whether to replace what is there.
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
        output.finish(overwrite=overwrite)
    return Result(
        path=final,
        seconds=time.monotonic() - began,
        threads=threads,
        tensors_copied=sum(tensor.is_copied for tensor in plan.tensors),
        tensors_computed=sum(not tensor.is_copied for tensor in plan.tensors),
        compiled=work.compiled,
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
        self.compiled = False
        self._total = plan.bytes_read
        self._waiting = deque(sorted(plan.tensors, key=lambda tensor: -tensor.bytes_read))
        self._buffers = buffers_needed(plan.jobs())
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._done: list[int] = []

    def run(self, threads: int, progress: Progress) -> None:
        """Make every tensor, and raise the first thing that went wrong."""
        if self._buffers:
            # Imported before the threads start, or they would race for it.
            import tensorsurgeon.execute.compute  # noqa: F401
            from tensorsurgeon.kernels import COMPILED

            self.compiled = COMPILED
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
        """What one thread does: take a tensor, make it, take the next."""

        def step(count: int) -> None:
            self._done[index] += count
            if self._stop.is_set():
                raise _StoppedError

        try:
            make = self._maker(step)
            while not self._stop.is_set():
                try:
                    tensor = self._waiting.popleft()
                except IndexError:  # none is left
                    return
                make(tensor)
        except _StoppedError:
            pass
        except BaseException as error:
            self._failures.append(error)
            self._stop.set()

    def _maker(self, step: Callable[[int], None]) -> Callable[[OutputTensor], None]:
        """A function that makes tensors with buffers of its own."""
        writer = TensorWriter(self.output)
        copier = Copier(self.reader, self.output, writer, step)
        compute: Callable[[OutputTensor], None] | None = None
        if self._buffers:
            from tensorsurgeon.execute.compute import Computer

            compute = Computer(self.reader, writer, self._buffers, step, self.notes.append).compute

        def make(tensor: OutputTensor) -> None:
            if not tensor.is_copied:
                assert compute is not None
                compute(tensor)
            elif isinstance(tensor.node, Stored):
                copier.copy(tensor.node.tensor, tensor.shard, tensor.offset)
            # Else zeros, and a new file is zero where nothing is written.

        return make


def default_threads() -> int:
    """One for each processor this process may use, and one that waits for the disk meanwhile.

    No more than MOST_THREADS, since the disk is busy by then and each takes memory.
    """
    if hasattr(os, "sched_getaffinity"):
        processors = len(os.sched_getaffinity(0))
    else:
        processors = os.cpu_count() or 1
    return min(processors, _processor_quota(), MOST_THREADS - 1) + 1


def _processor_quota() -> int:
    """Whole processors that a container's quota allows; many where there is none."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):  # no such file, or 'max'
        return MOST_THREADS
