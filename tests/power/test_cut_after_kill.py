"""The power goes during a run that goes on from another's work, or starts afresh over it.

The other was killed, which loses nothing and makes nothing sure, or the power went then as well.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tensorsurgeon import api
from tensorsurgeon.execute import run_plan
from tensorsurgeon.writing import journal
from tensorsurgeon.writing.disk import Disk
from tests.cli.checkpoints import file_bytes
from tests.crash.jobs import old_checkpoint, tiny_recipe
from tests.power.recording import FlushOp, NameOp, Op, RecordingDisk, Tree, inode
from tests.power.replay import WAYS, Cuts, Files, Merge, Recording, lay_down
from tests.power.test_power_cut import FLUSHES


class KilledError(BaseException):
    """Raised in place of the operation at which a run is killed, and of all it tries after it."""


@dataclass
class MortalDisk(RecordingDisk):
    """A disk whose user is killed before the operation `dies_at`; then another one uses it."""

    dies_at: float = math.inf

    def __getattribute__(self, name: str) -> Any:
        is_operation = name in vars(Disk) and not name.startswith("_")
        if is_operation and len(self.ops) >= self.dies_at:
            raise KilledError
        return super().__getattribute__(name)

    def remove(self, path: Path) -> None:
        """What is removed stays elsewhere, or another file could be given its inode."""
        parent = inode(path.parent)
        if path.is_dir() and any(path.iterdir()):
            super().remove(path)  # refused
        elsewhere = self.root.with_name(f"{self.root.name}-removed")
        elsewhere.mkdir(exist_ok=True)
        path.rename(elsewhere / str(len(self.ops)))
        self.ops.append(NameOp(gone=((parent, path.name),)))

    def recording(self, before: Tree) -> Recording:
        """All that was done until now."""
        return Recording(
            root=inode(self.root), before=before, ops=tuple(self.ops), folders=self.folders
        )


Instant = Callable[[Sequence[Op]], int]
"""How many operations of a run were done when it was killed."""


def flush(ending: str, which: int = 0, *, later: int = 0) -> Instant:
    """Before a flush of a path with this ending, or so many operations later."""
    return lambda ops: flushes(ops, ending)[which] + later


def note(later: int) -> Instant:
    """Before the flush that makes the note of the second tensor sure, or some operations later."""

    def instant(ops: Sequence[Op]) -> int:
        tensor = flushes(ops, "00001-of-00002.safetensors")[1]
        return next(at for at in flushes(ops, "journal") if at > tensor) + later

    return instant


def flushes(ops: Sequence[Op], ending: str) -> list[int]:
    """At which operations a path with this ending is flushed."""
    found = enumerate(ops)
    return [at for at, op in found if isinstance(op, FlushOp) and op.path.name.endswith(ending)]


BEGINNING = {
    "before its checkpoint folder is flushed": flush("checkpoint"),
    "before its work folder is flushed": flush(".part", -1),
    "before its parent folder is flushed": flush("disk"),
    "before a tensor is flushed": flush("00001-of-00002.safetensors", 1),
    "before a tensor is noted": note(-1),
    "before the note of a tensor is flushed": note(0),
    "after a tensor": note(1),
    "before its manifest is flushed": flush("tensorsurgeon.json"),
    "before its checkpoint folder is flushed again": flush("checkpoint", -1),
}
ENDING = {
    "before it is noted complete": flush("journal", -1, later=-1),
    "before that is flushed": flush("journal", -1),
    "before it is renamed": flush("journal", -1, later=1),
    "before the name is flushed": flush("disk", -1),
    "after all is flushed": flush("disk", -1, later=1),
    "while it cleans up": flush("disk", -1, later=2),
    "while it cleans up the last": flush("disk", -1, later=3),
}
ALL = {**BEGINNING, **ENDING}


@dataclass(frozen=True, kw_only=True)
class Case:
    """Two runs on one disk.

    Attributes:
        folder: room for disks and states.
        first: the run that is interrupted.
        second: the run that the power is cut in.
        resume: whether the second goes on from what the first has left.
        old: an earlier checkpoint in the place of the result.
        exchanges: whether the disk can exchange two folders.
        leaves_out: which flushes the second run forgets, by what was done and the path.
    """

    folder: Path
    first: Merge
    second: Merge
    resume: bool = True
    old: Path | None = None
    exchanges: bool = True
    leaves_out: Callable[[Sequence[Op], str], bool] = lambda ops, path: False

    def cuts(self) -> Cuts:
        """What may be there at any instant, and what is run then."""
        allowed: list[Files | None] = [self.first.files, self.second.files]
        allowed += [file_bytes(self.old)] if self.old else [None]
        allowed += [] if self.exchanges else [None]
        merges = [self.second] if self.first == self.second else [self.second, self.first]
        return Cuts(folder=self.folder, merges=merges, allowed=allowed)

    def killed(self, instant: Instant) -> tuple[MortalDisk, Tree]:
        """A disk on which the first run was killed; and what was on it before."""
        disk, _ = self._begun(math.inf)
        disk, before = self._begun(instant(disk.ops))
        disk.dies_at = math.inf
        return disk, before

    def _begun(self, dies_at: float) -> tuple[MortalDisk, Tree]:
        root = self._root()
        root.mkdir()
        if self.old:
            shutil.copytree(self.old, root / "out")
        disk, before = MortalDisk(root, self.exchanges, dies_at=dies_at), Tree.of(root)
        with suppress(KilledError):
            run(self.first, disk)
        return disk, before

    def _root(self) -> Path:
        for path in self.folder.glob("disk*"):
            shutil.rmtree(path)
        return self.folder / "disk"

    def check_after_kill(self, instant: Instant) -> None:
        """Cut the power in a second run on the disk as it was when the first was killed."""
        disk, before = self.killed(instant)
        since = len(disk.ops)
        self.cuts().check(self._second(disk, before), since)

    def check_after_cut(self, instant: Instant) -> None:
        """Cut the power in a second run on what an earlier cut has left, in any way."""
        disk, before = self.killed(instant)
        first, cuts = disk.recording(before), self.cuts()
        left = (
            first.after_power_cut(len(first.ops), names=names, loss=loss) for names, loss in WAYS
        )
        for contents in {frozenset(found.items()): found for found in left}.values():
            root = self._root()
            lay_down(contents, root)
            disk = MortalDisk(root, self.exchanges)
            cuts.check(self._second(disk, Tree.of(root)))

    def _second(self, disk: MortalDisk, before: Tree) -> Recording:
        disk.leaves_out = lambda path: self.leaves_out(disk.ops, path)
        run(self.second, disk, resume=self.resume)
        return disk.recording(before)


def run(merge: Merge, disk: RecordingDisk, *, resume: bool = True) -> None:
    out, overwrite = disk.root / "out", merge.overwrite
    run_plan(merge.plan, out, threads=1, overwrite=overwrite, resume=resume, disk=disk)


@pytest.fixture
def merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Merge, Merge]:
    """Two merges into files of the same names, sizes and headers."""
    monkeypatch.setattr(journal, "BATCH_SECONDS", 0.0)
    recipe = tiny_recipe(tmp_path)
    other = tmp_path / "other.yaml"
    other.write_text(recipe.read_text().replace("0.3, 0.7", "0.7, 0.3"))
    return made(recipe, tmp_path / "one"), made(other, tmp_path / "two")


def made(recipe: Path, folder: Path) -> Merge:
    plan = api.plan(recipe, output=folder)
    return Merge(plan=plan, files=file_bytes(api.apply(plan, threads=1).path))


@pytest.fixture
def room(tmp_path: Path) -> Path:
    (tmp_path / "room").mkdir()
    return tmp_path / "room"


@pytest.mark.parametrize("instant", ALL.values(), ids=ALL)
def test_promise_holds_in_a_run_that_goes_on_from_a_killed_one(
    instant: Instant, merges: tuple[Merge, Merge], room: Path
) -> None:
    Case(folder=room, first=merges[0], second=merges[0]).check_after_kill(instant)


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("instant", ENDING.values(), ids=ENDING)
def test_old_checkpoint_stays_whole_in_a_run_that_goes_on(
    instant: Instant, exchanges: bool, merges: tuple[Merge, Merge], room: Path
) -> None:
    merge, old = replace(merges[0], overwrite=True), old_checkpoint(room.parent / "old")
    case = Case(folder=room, first=merge, second=merge, old=old, exchanges=exchanges)
    case.check_after_kill(instant)


@pytest.mark.parametrize(
    "instant",
    [note(0), flush("checkpoint", -1), flush("disk", -1)],
    ids=["a tensor", "the checkpoint", "the name"],
)
def test_promise_holds_in_a_run_that_goes_on_from_what_another_cut_has_left(
    instant: Instant, merges: tuple[Merge, Merge], room: Path
) -> None:
    Case(folder=room, first=merges[0], second=merges[0]).check_after_cut(instant)


PART = {
    "some tensors": note(1),
    "some tensors, and one whose note is not sure": note(0),
}
LEFT = {**PART, "all of it": flush("journal", -1, later=1), "its result": flush("disk", -1)}


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
def test_promise_holds_in_a_run_that_starts_afresh_as_asked(
    left: Instant, merges: tuple[Merge, Merge], room: Path
) -> None:
    case = Case(folder=room, first=merges[0], second=merges[0], resume=False)
    case.check_after_kill(left)


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
def test_no_tensor_of_another_recipe_gets_into_a_run_that_starts_afresh(
    left: Instant, resume: bool, merges: tuple[Merge, Merge], room: Path
) -> None:
    first, second = (replace(merge, overwrite=True) for merge in merges)
    case = Case(folder=room, first=first, second=second, resume=resume)
    case.check_after_kill(left)


def while_the_old_goes(ops: Sequence[Op], path: str) -> bool:
    """Whether a flush comes after the journal's removal, and before anything new is there."""
    for op in reversed(ops):
        if isinstance(op, NameOp) and "checkpoint" in [name for _, name, _ in op.there]:
            return False
        if isinstance(op, NameOp) and "journal" in [name for _, name in op.gone]:
            return True
    return False


@pytest.mark.parametrize("other", [False, True], ids=["the same recipe", "another"])
@pytest.mark.parametrize("left", PART.values(), ids=PART)
def test_removal_of_the_journal_cannot_be_left_unflushed(
    left: Instant, other: bool, merges: tuple[Merge, Merge], room: Path
) -> None:
    first, second = (replace(merge, overwrite=True) for merge in merges)
    case = Case(
        folder=room,
        first=first,
        second=second if other else first,
        resume=False,
        leaves_out=while_the_old_goes,
    )
    with pytest.raises(AssertionError):
        case.check_after_kill(left)


@pytest.mark.parametrize("leaves_out", FLUSHES.values(), ids=FLUSHES)
def test_no_flush_can_be_left_out_of_a_run_that_goes_on(
    leaves_out: Callable[[str], bool], merges: tuple[Merge, Merge], room: Path
) -> None:
    case = Case(
        folder=room,
        first=merges[0],
        second=merges[0],
        leaves_out=lambda ops, path: leaves_out(path),
    )
    with pytest.raises(AssertionError):
        case.check_after_kill(BEGINNING["before its checkpoint folder is flushed"])
