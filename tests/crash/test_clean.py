"""`tensorsurgeon clean`: what interrupted runs have left is listed, and removed on request."""

import shutil
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import Command, command
from tests.crash.jobs import ALL_AT_ONCE, Job, old_checkpoint, strace, tiny_recipe

__all__ = ["command"]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    recipe = tiny_recipe(tmp_path)
    (tmp_path / "place").mkdir()
    options = ("-q", "--threads", "1")
    settings = {**ALL_AT_ONCE, "CRASH_ONE_THREAD": "1"}
    return Job(
        recipe=recipe,
        folder=tmp_path / "place",
        options=options,
        settings=tuple(settings.items()),
    )


def kill(job: Job, call: str) -> None:
    """Have a run killed at one of its calls."""
    done = job.run(*strace([f"{call}:signal=SIGKILL"]))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert job.work.is_dir()


def test_clean_lists_what_is_left_and_removes_it_only_on_request(
    job: Job, command: Command
) -> None:
    kill(job, "rename:when=1")
    listed = command("clean", job.folder)
    assert (listed.code, listed.err) == (0, "")
    assert listed.out.startswith(f"{job.work}  ")
    assert "interrupted 2" in listed.out
    assert "5 tensors made" in listed.out
    assert job.left() == [".out.part"]
    removed = command("clean", job.folder, "--remove")
    assert removed.code == 0
    assert removed.err == f"removed {job.work}\n"
    assert job.left() == []
    assert command("clean", job.folder, "--remove").out == ""


def test_clean_gives_an_old_checkpoint_its_place_back(job: Job, command: Command) -> None:
    """As a run leaves it that is stopped between the two renames, where there is no exchange."""
    kill(job, "rename:when=1")
    old_checkpoint(job.work / "old")
    before = sorted(path.name for path in (job.work / "old").iterdir())
    done = command("clean", job.folder, "--remove")
    assert done.err.splitlines() == [
        f"put the old checkpoint back at {job.out}",
        f"removed {job.work}",
    ]
    assert job.left() == ["out"]
    assert sorted(path.name for path in job.out.iterdir()) == before


def test_clean_leaves_a_run_at_work_alone(job: Job, command: Command) -> None:
    with job.start(*strace(["pwrite64:delay_enter=30s:when=2"])) as process:
        try:
            while not (job.work / "checkpoint").exists():
                assert process.poll() is None
            done = command("clean", job.folder, "--remove")
            # Once strace is gone, what it held back goes on and ends.
            left_alone = (job.work / "checkpoint").exists()
        finally:
            process.kill()
    assert done.code == 0
    assert "in use by process " in done.out
    assert done.err == ""
    assert left_alone


def test_clean_touches_nothing_else(job: Job, tmp_path: Path, command: Command) -> None:
    kill(job, "rename:when=1")
    elsewhere = tmp_path / "elsewhere"
    shutil.move(job.work, elsewhere)
    (job.folder / ".out.part").symlink_to(elsewhere)
    (job.folder / ".other.part").mkdir()  # no lock in it
    (job.folder / "plain.part").mkdir()
    (job.folder / "plain.part" / "lock").touch()
    (job.folder / ".file.part").touch()
    before = job.left()
    done = command("clean", job.folder, "--remove")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert job.left() == before
    assert (elsewhere / "journal").exists()


def test_folder_that_cannot_be_listed_is_told(tmp_path: Path, command: Command) -> None:
    done = command("clean", tmp_path / "no")
    assert done.code == 2
    assert "does not exist" in done.err
