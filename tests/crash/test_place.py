"""What else may lie where a result is made: nothing of it is lost, followed or taken for it."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tensorsurgeon import api
from tensorsurgeon.errors import TensorSurgeonError
from tests.cli.checkpoints import file_bytes
from tests.crash.jobs import ALL_AT_ONCE, Job, old_checkpoint, strace, tiny_recipe

OUTPUT, THERE = 7, 6


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(
        recipe=tiny_recipe(tmp_path),
        folder=tmp_path / "place",
        options=("--threads", "1"),
        settings=(*ALL_AT_ONCE.items(), ("CRASH_ONE_THREAD", "1")),
    )


@pytest.fixture
def want(job: Job) -> dict[str, bytes]:
    """The bytes of an uninterrupted run; its folder is empty again."""
    job.folder.mkdir()
    assert job.run().returncode == 0
    files = job.files()
    shutil.rmtree(job.out)
    assert files is not None
    return files


def over(job: Job) -> Job:
    return Job(
        recipe=job.recipe,
        folder=job.folder,
        options=(*job.options, "--overwrite"),
        settings=job.settings,
    )


def kill(job: Job, call: str) -> None:
    done = job.run(*strace([f"{call}:signal=SIGKILL"]))
    assert done.returncode == -signal.SIGKILL, done.stderr


def drop_manifest(job: Job) -> None:
    (job.out / "tensorsurgeon.json").unlink()


def move_away(job: Job) -> None:
    job.out.rename(job.folder / "new")


def move_away_and_lose_a_file_of_the_old(job: Job) -> None:
    move_away(job)
    (job.work / "checkpoint" / "model.safetensors").unlink()


@pytest.mark.parametrize("change", [move_away, move_away_and_lose_a_file_of_the_old, drop_manifest])
def test_old_checkpoint_is_never_taken_for_the_new_one(
    change: Callable[[Job], None], job: Job, want: dict[str, bytes]
) -> None:
    """Killed after the exchange, the work folder holds the old one, and a complete journal."""
    old_checkpoint(job.out)
    kill(over(job), "rename:when=1")
    assert job.files() == want
    assert (job.work / "journal").exists()
    assert (job.work / "checkpoint" / "notes.txt").exists()
    change(job)
    done = over(job).run()
    assert done.returncode == 0, done.stderr
    assert job.files() == want
    assert set(job.left()) <= {"out", "new"}


def remove_shard(checkpoint: Path) -> None:
    next(checkpoint.glob("*.safetensors")).unlink()


def cut_shard(checkpoint: Path) -> None:
    os.truncate(next(checkpoint.glob("*.safetensors")), 10)


def remove_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()


def remove_manifest(checkpoint: Path) -> None:
    (checkpoint / "tensorsurgeon.json").unlink()


@pytest.mark.parametrize("damage", [remove_shard, cut_shard, remove_tokenizer, remove_manifest])
def test_complete_result_that_was_damaged_before_its_rename_is_made_again(
    damage: Callable[[Path], None], job: Job, want: dict[str, bytes]
) -> None:
    kill(job, "rename:when=1")
    damage(job.work / "checkpoint")
    done = job.run()
    assert done.returncode == 0, done.stderr
    assert "starting afresh" in done.stderr
    assert job.files() == want


def test_manifest_that_cannot_be_read_now_is_no_reason_to_replace_its_checkpoint(
    job: Job, want: dict[str, bytes]
) -> None:
    old_checkpoint(job.out)
    kill(over(job), "rename:when=1")
    manifest = job.out / "tensorsurgeon.json"
    inject = ("strace", "-f", "-o", os.devnull, "-P", str(manifest), "-e", "trace=openat")
    done = over(job).run(*inject, "-e", "inject=openat:error=EIO")
    assert done.returncode == OUTPUT, done.stderr
    assert f"{manifest}: cannot be read: Input/output error" in done.stderr
    assert job.files() == want


def test_damaged_journal_is_told(job: Job, want: dict[str, bytes]) -> None:
    kill(job, "rename:when=1")
    journal = job.work / "journal"
    journal.write_bytes(b"x" + journal.read_bytes())
    done = job.run()
    assert "its journal is damaged" in done.stderr
    assert job.files() == want


def test_journal_that_cannot_be_read_now_is_kept(job: Job, want: dict[str, bytes]) -> None:
    kill(job, "rename:when=1")
    before = file_bytes(job.work / "checkpoint")
    inject = ("strace", "-f", "-o", os.devnull, "-P", str(job.work / "journal"))
    done = job.run(*inject, "-e", "trace=openat", "-e", "inject=openat:error=EIO")
    assert done.returncode == OUTPUT, done.stderr
    assert file_bytes(job.work / "checkpoint") == before
    assert job.run().returncode == 0
    assert job.files() == want


def test_file_in_the_way_of_the_work_folder_is_kept(job: Job) -> None:
    job.folder.mkdir()
    job.work.write_text("precious")
    done = job.run()
    assert done.returncode == OUTPUT
    assert f"{job.work}: is in the way" in done.stderr
    assert job.work.read_text() == "precious"
    assert job.left() == [".out.part"]


@pytest.mark.parametrize("dangling", [False, True])
def test_link_in_the_way_of_the_work_folder_is_not_followed(dangling: bool, job: Job) -> None:
    job.folder.mkdir()
    victim = job.recipe.parent / "victim"
    if not dangling:
        (victim / "checkpoint").mkdir(parents=True)
        (victim / "checkpoint" / "precious").touch()
    job.work.symlink_to(victim)
    done = job.run()
    assert done.returncode == OUTPUT
    assert f"{job.work}: is in the way" in done.stderr
    assert (victim / "checkpoint" / "precious").exists() != dangling


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_lock_that_is_no_file_is_left_alone(kind: str, job: Job) -> None:
    job.work.mkdir(parents=True)
    lock, victim = job.work / "lock", job.recipe.parent / "victim"
    victim.write_text("precious")
    if kind == "link":
        lock.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    done = job.run()
    assert done.returncode == OUTPUT
    assert f"{lock}: is in the way" in done.stderr
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_journal_that_is_no_file_is_replaced(kind: str, job: Job, want: dict[str, bytes]) -> None:
    kill(job, "rename:when=1")
    journal, victim = job.work / "journal", job.recipe.parent / "victim"
    victim.write_bytes(journal.read_bytes())
    before = victim.read_bytes()
    journal.unlink()
    if kind == "link":
        journal.symlink_to(victim)
    else:
        os.mkfifo(journal)
    assert job.run().returncode == 0
    assert job.files() == want
    assert victim.read_bytes() == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_at_the_output_during_the_run_is_kept(
    overwrite: bool, job: Job, want: dict[str, bytes]
) -> None:
    precious = job.out / "thesis.txt"

    def progress(_done: int, _total: int) -> None:
        job.out.mkdir(exist_ok=True)
        precious.write_text("years of work")

    plan = api.plan(job.recipe, output=job.out)
    with pytest.raises(TensorSurgeonError) as refused:
        api.apply(plan, overwrite=overwrite, progress=progress)
    assert refused.value.exit_code in (OUTPUT, THERE)
    assert any("are kept in" in note for note in refused.value.__notes__)
    assert precious.read_text() == "years of work"
    precious.unlink()
    job.out.rmdir()
    assert job.run().returncode == 0
    assert job.files() == want


def test_name_too_long_for_a_work_folder_is_refused_at_once(job: Job) -> None:
    job.folder.mkdir()
    long = Job(recipe=job.recipe, folder=job.folder, options=("-o", str(job.folder / ("x" * 252))))
    done = long.run()
    assert done.returncode == THERE
    assert "File name too long" in done.stderr
    assert job.left() == []


def test_failure_of_another_work_does_not_promise_to_go_on(
    job: Job, want: dict[str, bytes]
) -> None:
    kill(job, "rename:when=1")
    job.recipe.write_text(job.recipe.read_text().replace("0.3, 0.7", "0.4, 0.6"))
    done = job.run(*strace(["unlink:error=EIO:when=1"]))
    assert done.returncode == OUTPUT
    assert "recipe or inputs have changed" in done.stderr
    assert "goes on from there" not in done.stderr
    assert job.run().returncode == 0
    assert job.files() != want
