"""Two processes want one output: one makes it, the other stops at once, and nothing is lost."""

import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest

from tests.crash.jobs import ALL_AT_ONCE, Job, old_checkpoint, strace, tiny_recipe

ROUNDS = 100

DONE, THERE, BUSY = 0, 6, 8


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tiny_recipe(tmp_path)


def make_job(recipe: Path, *options: str) -> Job:
    folder = recipe.parent / "place"
    folder.mkdir(exist_ok=True)
    return Job(
        recipe=recipe,
        folder=folder,
        options=("-q", "--threads", "1", *options),
        settings=tuple(ALL_AT_ONCE.items()),
    )


def race(job: Job, head_start: float) -> list[tuple[int, str]]:
    """Exit codes and messages of two processes at once; neither waits for the other."""
    one = job.start()
    time.sleep(head_start)
    other = job.start()
    ends = []
    for process in (one, other):
        with process:
            _, err = process.communicate(timeout=60)
        ends.append((process.returncode, err))
    return ends


def test_of_two_processes_one_makes_the_output_and_nothing_is_lost(recipe: Path) -> None:
    job = make_job(recipe)
    assert job.run().returncode == DONE
    want = job.files()
    met = set()
    for number in range(ROUNDS):
        # In every other round they race for the folder that the output is in, too.
        shutil.rmtree(job.folder if number % 2 else job.out)
        # They meet anywhere from the lock to the last step, which the second finds done.
        ends = race(job, head_start=number % 20 / 400)
        codes = sorted(code for code, _ in ends)
        assert codes[0] == DONE, ends
        assert codes[1] in (DONE, THERE, BUSY), ends
        assert all(len(err.splitlines()) == 2 for code, err in ends if code != DONE), ends
        assert job.files() == want, ends
        assert job.left() == ["out"], ends
        met.add(codes[1])
    assert BUSY in met


def test_two_processes_that_overwrite_lose_nothing(recipe: Path, tmp_path: Path) -> None:
    job = make_job(recipe, "--overwrite")
    assert job.run().returncode == DONE
    want = job.files()
    old = old_checkpoint(tmp_path / "old")
    for number in range(ROUNDS // 5):
        shutil.rmtree(job.out)
        shutil.copytree(old, job.out)
        ends = race(job, head_start=number / 400)
        codes = sorted(code for code, _ in ends)
        assert codes in ([DONE, DONE], [DONE, BUSY]), ends
        assert job.files() == want, ends
        assert job.left() == ["out"], ends


def changes(folder: Path) -> dict[Path, int]:
    """When each file in a folder was last written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@contextmanager
def held(job: Job) -> Iterator[Popen[str]]:
    """The job as a process that has the lock and will not come to its end."""
    with job.start(*strace(["fdatasync:delay_enter=60s:when=1"])) as process:
        deadline = time.monotonic() + 30
        journal = job.work / "journal"
        seen: dict[Path, int] = {}
        quiet = 0
        # The next flush is the first, after a tensor was written. On a busy machine a process may
        # do nothing for a while and yet not be there.
        while not (journal.exists() and journal.stat().st_size and quiet >= 10):
            assert process.poll() is None
            assert time.monotonic() < deadline
            quiet = quiet + 1 if changes(job.folder) == seen else 0
            seen = changes(job.folder)
            time.sleep(0.1)
        holder = int(re.search(r'"pid": (\d+)', (job.work / "lock").read_text())[1])  # type: ignore[index]
        try:
            yield process
        finally:
            os.kill(holder, signal.SIGKILL)
            process.kill()
            process.communicate(timeout=30)


def test_second_run_stops_at_once_and_names_the_holder(recipe: Path) -> None:
    job = make_job(recipe)
    with held(job):
        before = changes(job.folder)
        holder = re.search(r'"pid": (\d+)', (job.work / "lock").read_text())
        assert holder
        began = time.monotonic()
        done = job.run()
        assert time.monotonic() - began < 5
        assert (done.returncode, done.stdout) == (BUSY, "")
        first, fix = done.stderr.splitlines()
        when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}"
        who = f"process {holder[1]} on {re.escape(socket.gethostname())} since {when}"
        said = rf"(error: )?{re.escape(str(job.out))}: another run is making it: {who}"
        assert re.fullmatch(said, first), first
        assert fix.startswith("  fix: ")
        assert changes(job.folder) == before


def test_lock_of_a_killed_holder_is_taken_over(recipe: Path) -> None:
    job = make_job(recipe)
    with held(job):
        assert job.run().returncode == BUSY
    assert (job.work / "lock").exists()
    done = job.run()
    assert done.returncode == DONE, done.stderr
    assert job.left() == ["out"]


def test_two_processes_that_take_over_from_a_killed_one_lose_nothing(recipe: Path) -> None:
    job = make_job(recipe)
    assert job.run().returncode == DONE
    want = job.files()
    left = recipe.parent / "left"
    shutil.rmtree(job.out)
    assert job.run(*strace(["pwrite64:signal=SIGKILL:when=5"])).returncode == -signal.SIGKILL
    shutil.copytree(job.work, left)
    for number in range(ROUNDS // 5):
        shutil.rmtree(job.out, ignore_errors=True)
        shutil.rmtree(job.work, ignore_errors=True)
        shutil.copytree(left, job.work)
        ends = race(job, head_start=number / 400)
        codes = sorted(code for code, _ in ends)
        assert codes[0] == DONE, ends
        assert codes[1] in (DONE, THERE, BUSY), ends
        assert job.files() == want, ends
        assert job.left() == ["out"], ends
