"""The power goes while a trained checkpoint is written."""

from pathlib import Path
from typing import Any, cast

import pytest

from tensorsurgeon.writing import Disk, Journal, Record, Workplace
from tests.cli.checkpoints import file_bytes
from tests.power.cutting import Case, Unflushed, states_after
from tests.power.recording import RecordingDisk, Tree
from tests.trainer.export.jobs import Job, put
from tests.trainer.export.models import files_of


@pytest.mark.parametrize(
    ("overwrite", "exchanges"),
    [(False, True), (True, True), (True, False)],
    ids=["new", "exchanged", "stepped aside"],
)
def test_power_cut_after_any_operation_leaves_the_old_or_the_new_or_nothing(
    overwrite: bool, exchanges: bool, job: Job, old: Path, tmp_path: Path
) -> None:
    root, state = tmp_path / "root", tmp_path / "state"
    final = root / "out"
    root.mkdir()
    allowed: list[dict[str, bytes] | None] = [put(old, final) if overwrite else None]
    if not exchanges:
        allowed.append(None)
    tree = Tree.of(root)
    disk = RecordingDisk(root, exchanges=exchanges)
    job.write(final, overwrite=overwrite, disk=disk)
    new = file_bytes(final)
    case = Case(
        plan=cast("Any", None),
        root=root,
        overwrite=overwrite,
        before=tree,
        allowed=(*allowed, new),
        new=new,
        ops=disk.ops,
        folders=disk.folders,
    )
    for at in range(len(disk.ops) + 1):
        for left in states_after(case, at, state):
            out = left / "out"
            there = file_bytes(out) if out.exists() else None
            assert there in (case.allowed if at < len(disk.ops) else (new,)), at
            if there == new and not (left / ".out.part").exists():
                continue
            if at % 3 and at < len(disk.ops) - 12:
                continue  # the next run begins afresh from all of these
            job.write(out, overwrite=overwrite, disk=Unflushed())
            assert files_of(out) == job.want
            assert [path.name for path in left.iterdir()] == ["out"]


def test_journal_of_an_interrupted_surgery_is_gone_for_sure_before_shards_are_laid_down(
    job: Job, tmp_path: Path
) -> None:
    root, disk = tmp_path / "root", Disk()
    place = Workplace.of(root / "out")
    place.root.mkdir(parents=True)
    Journal(disk, place.journal, Record(binding="0" * 64, run="1" * 32), lambda: None).close()
    tree = Tree.of(root)
    recording = RecordingDisk(root)
    job.write(place.final, disk=recording)
    new = file_bytes(place.final)
    case = Case(
        plan=cast("Any", None),
        root=root,
        overwrite=False,
        before=tree,
        allowed=(None, new),
        new=new,
        ops=recording.ops,
        folders=recording.folders,
    )
    with_journal = 0
    for at in range(len(recording.ops) + 1):
        for left in states_after(case, at, tmp_path / "state"):
            names = {path.name for path in (left / ".out.part").glob("*")}
            assert not names >= {"journal", "checkpoint"}, at
            with_journal += "journal" in names
    assert with_journal
