"""Where the result goes: whole or not at all, over nothing that is not to be replaced."""

import random
import shutil
import time
from contextlib import suppress
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tensorsurgeon.errors import BusyError, OutputError, PlanError
from tensorsurgeon.trainer.export import is_finished, write_checkpoint
from tensorsurgeon.writing import Disk, Journal, Record, Workplace, locked
from tests.cli.checkpoints import (
    file_bytes,
)
from tests.power.cutting import Unflushed
from tests.trainer.export.jobs import Job, KilledError, MortalDisk, put, trained
from tests.trainer.export.models import command, export_of, files_of
from tests.trainer.saving.ranks import start

ROUNDS = 8


def test_what_is_there_is_replaced_on_request_alone(job: Job, old: Path, tmp_path: Path) -> None:
    final = tmp_path / "out"
    before = put(old, final)
    with pytest.raises(PlanError, match="is already there"):
        job.write(final)
    assert file_bytes(final) == before
    job.write(final, overwrite=True)
    assert files_of(final) == job.want
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_folder_that_is_no_checkpoint_is_never_replaced(job: Job, tmp_path: Path) -> None:
    final = tmp_path / "out"
    final.mkdir()
    (final / "thesis.tex").write_text("years of work")
    with pytest.raises(PlanError, match="no config"):
        job.write(final, overwrite=True)
    assert file_bytes(final) == {"thesis.tex": b"years of work"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_folders_above_are_made_and_removed_again_where_it_fails(job: Job, tmp_path: Path) -> None:
    final = tmp_path / "a" / "b" / "out"

    def diverged(name: str) -> Tensor:
        return torch.full_like(trained("model.norm.weight"), torch.nan)  # type: ignore[arg-type]

    small = export_of(job.source, depth=1)
    with pytest.raises((OutputError, AssertionError)):
        write_checkpoint(small, final, diverged)
    assert not list(tmp_path.iterdir())
    job.write(final)
    assert files_of(final) == job.want


def test_another_run_at_the_same_place_is_waited_for(job: Job, tmp_path: Path) -> None:
    final = tmp_path / "out"
    with locked(Workplace.of(final), Disk()), pytest.raises(BusyError) as error:
        job.write(final)
    assert "another run is making it: process " in str(error.value)
    assert str(error.value).endswith("or choose another folder as output: path:")


def test_journal_of_an_interrupted_surgery_is_not_left_beside_other_shards(
    job: Job, tmp_path: Path
) -> None:
    final, disk = tmp_path / "out", Disk()
    place = Workplace.of(final)
    place.root.mkdir()
    Journal(disk, place.journal, Record(binding="0" * 64, run="1" * 32), lambda: None).close()
    for number in count():
        mortal = MortalDisk(number)
        try:
            job.write(final, disk=mortal)
        except KilledError:
            names = {path.name for path in place.root.iterdir()}
            # Until the journal is gone for sure, there is nothing that could be taken for its own.
            assert "checkpoint" not in names or "journal" not in names
            continue
        break
    assert files_of(final) == job.want


@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwritten"])
def test_run_killed_before_any_operation_leaves_the_old_or_the_new_or_nothing(
    overwrite: bool, job: Job, old: Path, tmp_path: Path
) -> None:
    seen = []
    for number in count():
        root = tmp_path / str(number)
        final = root / "out"
        root.mkdir()
        before = put(old, final) if overwrite else None
        try:
            job.write(final, overwrite=overwrite, disk=MortalDisk(number))
        except KilledError:
            there = file_bytes(final) if final.exists() else None
            is_new = there != before and files_of(final) == job.want
            assert is_new or there == before, number
            assert overwrite or is_finished(job.export, final) == is_new
            job.write(final, overwrite=overwrite, disk=Unflushed())
            seen.append(is_new)
        assert files_of(final) == job.want
        assert [path.name for path in root.iterdir()] == ["out"]
        if len(seen) <= number:
            break
    assert seen.count(False) > 30
    assert seen.count(True) >= 3


def slowly(source: Path, final: Path) -> None:
    """The job in another process, some of whose values take a while."""

    def values(name: str) -> Tensor | None:
        time.sleep(0.02)
        return trained(name)

    export = export_of(source, depth=1, max_shard_size=5_000)
    write_checkpoint(export, final, values, overwrite=True)


def test_kill_at_random_times_leaves_the_old_or_the_new(
    job: Job, old: Path, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    final = tmp_path / "out"
    killed = 0
    for number in range(ROUNDS):
        before = put(old, final)
        (rank,) = start(1, slowly, job.source, final)
        wait_until_taken(final, rank.process)
        time.sleep(chance.uniform(0, 0.15))
        rank.process.kill()
        rank.process.join()
        there = file_bytes(final)
        what = f"seed {seed}, round {number}"
        assert there == before or files_of(final) == job.want, what
        killed += there == before
        shutil.rmtree(final)  # what the killed run has left beside it stays
    job.write(final, overwrite=True)
    assert files_of(final) == job.want
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert killed, f"seed {seed}"


def wait_until_taken(final: Path, process: BaseProcess) -> None:
    """Until a process has the lock, or is done already."""
    deadline = time.monotonic() + 30
    lock = Workplace.of(final).lock
    while process.is_alive():
        assert time.monotonic() < deadline
        with suppress(FileNotFoundError):
            if f'"pid": {process.pid},' in lock.read_text():
                break
        time.sleep(0.002)


def test_clean_lists_and_removes_what_a_killed_run_has_left(job: Job, tmp_path: Path) -> None:
    final = tmp_path / "out"
    with pytest.raises(KilledError):
        job.write(final, disk=MortalDisk(12))
    assert ".out.part" in command("clean", tmp_path)
    command("clean", tmp_path, "--remove")
    assert not list(tmp_path.iterdir())
