"""Saves that all ranks begin at one moment, with strace attached to the first of them."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from tensorsurgeon.trainer.resume import examine
from tensorsurgeon.trainer.saving import Saver, Written
from tests.trainer.saving.ranks import Rank, run, start
from tests.trainer.saving.states import loaded, state_of

CHANGES = "write,pwrite64,fsync,fdatasync,rename,mkdir,unlink,rmdir"
"""Calls by which a save changes the disk; what is opened for it is written or flushed, too."""

Call = tuple[str, int]
"""A name, and the how-manieth of that name in its thread."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Ranks that save one step after another.

    Attributes:
        folder: of the checkpoints.
        place: where the ranks and the test tell each other things, by files.
        world: how many ranks.
        steps: how many they save.
        work: what they do.
    """

    folder: Path
    place: Path
    world: int = 1
    steps: int = 2
    work: "Callable[[Job], object] | None" = None

    def begin(self) -> list[Rank]:
        """Start the ranks; returns when they have begun to save."""
        return self._start(())[0]

    def traced(self, *options: str) -> list[object]:
        """Run to the end under strace; what each rank returned or raised."""
        ranks, (tracer,) = self._start(("strace", "-f", "-y", *options, "-p"))
        ends = [rank.outcome() for rank in ranks]
        tracer.communicate(timeout=30)
        return ends

    def injected(self, rule: str) -> list[object]:
        """Run to the end with something done at a call, as strace's `inject` has it."""
        name = rule.partition(":")[0]
        return self.traced("-o", os.devnull, "-e", f"trace={name}", "-e", f"inject={rule}")

    def _start(
        self, wrapper: tuple[str, ...]
    ) -> tuple[list[Rank], list["subprocess.Popen[bytes]"]]:
        self.place.mkdir(exist_ok=True)
        for path in (*self.place.glob("ready-*"), *self.place.glob("begin")):
            path.unlink()
        ranks = start(self.world, self.work or save_on, self)
        while len(list(self.place.glob("ready-*"))) < self.world:
            assert all(rank.process.is_alive() for rank in ranks)
            time.sleep(0.002)
        tracers = []
        if wrapper:
            command = [*wrapper, str(ranks[0].process.pid)]
            tracers.append(subprocess.Popen(command, stderr=subprocess.PIPE))
            assert tracers[0].stderr
            assert b"attached" in tracers[0].stderr.readline()
        (self.place / "begin").touch()
        return ranks, tracers

    @property
    def told(self) -> int:
        """The newest step that the ranks were told to be complete; 0 where none was."""
        return max((int(path.name[5:]) for path in self.place.glob("told-*")), default=0)

    def check(self, at_least: int, what: str) -> int:
        """What the next run finds: a whole checkpoint, of one step, none newer lost, all else gone.

        Returns:
            Its step; 0 where there is none and need be none.
        """
        if not at_least and not list(self.folder.glob("step-????????")):
            return 0
        assert not examine(self.folder)[1], what
        ((step, values, meta),) = run(1, loaded, self.folder)
        assert step >= at_least, what
        assert values == {float(step)}, what
        assert meta == {"of": step}, what
        left = {path.name for path in self.folder.iterdir()}
        assert left <= {f"step-{step:08d}", f"step-{step - 1:08d}"}, what
        return int(step)


@contextmanager
def begun(job: Job, done: Callable[[Written], None]) -> Iterator[Saver]:
    """A saver, when the test has said that all may begin."""
    with Saver(job.folder, keep=1, done=done) as saver:
        (job.place / f"ready-{dist.get_rank()}").touch()
        while not (job.place / "begin").exists():
            time.sleep(0.002)
        yield saver


def save_on(job: Job) -> None:
    """Go on from the newest checkpoint, and save each step."""

    def note(written: Written) -> None:
        (job.place / f"told-{written.step}").touch()

    with begun(job, note) as saver:
        saved = saver.latest(print)
        first = saved.step + 1 if saved else 1
        for step in range(first, first + job.steps):
            saver.save(step, state_of(step), {"of": step})
        saver.wait()


def train_on(job: Job) -> int:
    """Save, and take steps in which the ranks talk until that is told; which one it was."""
    told: list[Written] = []
    with begun(job, told.append) as saver:
        saver.save(1, state_of(1), {"of": 1})
        for step in range(job.steps):
            ranks = torch.ones(())
            dist.all_reduce(ranks)
            assert ranks == job.world
            saver.poll()
            if told:
                return step
            time.sleep(0.002)
    raise AssertionError


def trace(job: Job, log: Path) -> list[str]:
    """The lines of strace on the calls that changed the folder."""
    assert job.traced("-o", str(log), "-e", f"trace={CHANGES}") == [None] * job.world
    return log.read_text().splitlines()


def calls_of(lines: list[str], folder: Path) -> list[Call]:
    """Each call that changed the folder, counted as strace counts."""
    counts: dict[tuple[str, str], int] = {}
    found = []
    for line in lines:
        call = re.match(r"(\d+) +(\w+)\(", line)
        if call:
            thread, name = call.groups()
            counts[thread, name] = counts.get((thread, name), 0) + 1
            if str(folder) in line:
                found.append((name, counts[thread, name]))
    return found
