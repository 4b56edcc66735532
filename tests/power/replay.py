"""Runs on a disk that is cut, once and again, and what is asked of every state that this leaves.

That is: whole or absent, and whole once more when the same command is given again.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Literal, get_args

from tensorsurgeon.execute import run_plan
from tensorsurgeon.execute.provenance import binding_of
from tensorsurgeon.plan import Plan
from tensorsurgeon.writing.disk import Disk
from tensorsurgeon.writing.journal import Record, read_journal
from tests.cli.checkpoints import file_bytes
from tests.power.recording import DataOp, FlushOp, Loss, NameOp, Op, Tree, apply_to

Files = dict[str, bytes]
"""What `file_bytes` tells of a checkpoint."""

Names = Literal["lost", "kept", "added", "removed"]
"""Which changes of names outlive a power cut though they were not flushed."""

WAYS: tuple[tuple[Names, Loss], ...] = tuple(product(get_args(Names), get_args(Loss)))
"""What becomes of names and of bytes that were not flushed."""

Contents = dict[str, bytes | None]
"""Files and folders by their paths below the root; None stands for a folder."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What was done to a disk, and what was on it, and sure, before.

    Attributes:
        root: the inode of the folder that all is in.
        before: what was there.
        ops: what was done, in its order.
        folders: inodes of all that are folders.
    """

    root: int
    before: Tree
    ops: Sequence[Op]
    folders: set[int]

    @cached_property
    def _sure_from(self) -> list[int]:
        """After how many operations each one is sure; more than there are for those never sure."""
        found, flushed = [], dict[int, int]()
        for at, op in reversed(list(enumerate(self.ops))):
            if isinstance(op, FlushOp):
                if op.done:
                    flushed[op.inode] = at + 1
                found.append(at)
            else:
                inodes = op.folders if isinstance(op, NameOp) else {op.file}
                found.append(min(flushed.get(number, len(self.ops) + 1) for number in inodes))
        return found[::-1]

    def after_power_cut(self, count: int, *, names: Names, loss: Loss) -> Contents:
        """What is left when the power goes after `count` operations."""
        entries = {folder: dict(there) for folder, there in self.before.entries.items()}
        files = {number: bytearray(data) for number, data in self.before.files.items()}
        for op, sure_from in zip(self.ops[:count], self._sure_from, strict=False):
            sure = sure_from <= count
            if isinstance(op, NameOp) and (sure or names in ("kept", kind_of(op))):
                for folder, name in op.gone:
                    entries.setdefault(folder, {}).pop(name, None)
                for folder, name, number in op.there:
                    entries.setdefault(folder, {})[name] = number
            elif isinstance(op, DataOp):
                apply_to(files.setdefault(op.file, bytearray()), op, "kept" if sure else loss)
        found: Contents = {}

        def look(folder: int, path: str) -> None:
            for name, number in entries.get(folder, {}).items():
                if number in self.folders:
                    found[path + name] = None
                    look(number, f"{path}{name}/")
                else:
                    found[path + name] = bytes(files.get(number, b""))

        look(self.root, "")
        return found


def kind_of(op: NameOp) -> Names:
    """Whether names were added, as by a rename, or only removed."""
    return "added" if op.there else "removed"


def lay_down(contents: Contents, target: Path) -> None:
    """Make a folder of these contents."""
    target.mkdir()
    for path, data in contents.items():  # folders come before what is in them
        (target / path).mkdir() if data is None else (target / path).write_bytes(data)


class Unflushed(Disk):
    """For the runs after a power cut, of which nothing is asked but their bytes."""

    def flush(self, descriptor: int) -> None:
        pass

    def flush_folder(self, path: Path) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Merge:
    """A command that may be given: a plan, what it makes, and whether that may replace another."""

    plan: Plan
    files: Files
    overwrite: bool = False


@dataclass(kw_only=True)
class Cuts:
    """Cuts the power of recorded runs; states that are alike are looked at once.

    Attributes:
        folder: where the states go.
        merges: what is run on each state; the recorded run was of the first.
        allowed: what may be at the output's place at any instant.
        seen: states that were looked at, and what was promised of them.
    """

    folder: Path
    merges: Sequence[Merge]
    allowed: Sequence[Files | None]
    seen: set[int] = field(default_factory=set)

    def check(self, recording: Recording, since: int = 0) -> None:
        """Cut after each operation, from one on; see what is there; and run once more."""
        for count in range(since, len(recording.ops) + 1):
            promised = journalled(recording, count, self.folder)
            for names, loss in WAYS:
                contents = recording.after_power_cut(count, names=names, loss=loss)
                finished = count == len(recording.ops)
                said = (promised.binding, len(promised.digests)) if promised else None
                key = hash((frozenset(contents.items()), said, finished))
                if key not in self.seen:
                    self.seen.add(key)
                    for merge in self.merges:
                        self._check(contents, merge, promised, finished=finished)

    def _check(
        self, contents: Contents, merge: Merge, promised: Record | None, *, finished: bool
    ) -> None:
        state = self.folder / "state"
        lay_down(contents, state)
        out = state / "out"
        there = file_bytes(out) if out.exists() else None
        assert there in ((self.merges[0].files,) if finished else self.allowed)
        if there != merge.files or (state / ".out.part").exists():
            disk = Unflushed()
            result = run_plan(merge.plan, out, threads=1, overwrite=merge.overwrite, disk=disk)
            assert file_bytes(out) == merge.files
            assert [entry.name for entry in state.iterdir()] == ["out"]
            if promised and promised.binding == binding_of(merge.plan):
                assert result.tensors_resumed >= len(promised.digests)
        shutil.rmtree(state)


def journalled(recording: Recording, count: int, folder: Path) -> Record | None:
    """What the journal says for sure after `count` operations, were no flush left out.

    None where there is none, or where the result is complete and goes to its place.
    """
    ops = [replace(op, done=True) if isinstance(op, FlushOp) else op for op in recording.ops]
    meant = replace(recording, ops=ops)
    data = meant.after_power_cut(count, names="kept", loss="dropped").get(".out.part/journal")
    path = folder / "journal"
    path.write_bytes(data or b"")
    record = read_journal(path)
    return None if record is None or record.complete else record
