"""The disk fails, limits are met, signals come: one message, and then the same command goes on."""

import random
import resource
import shutil
import signal
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from tensorsurgeon.writing.journal import read_journal
from tests.cli.checkpoints import llama_config, llama_tensors, tiny_llama, write_checkpoint
from tests.crash.jobs import ALL_AT_ONCE, Call, Files, Job, old_checkpoint, strace, tiny_recipe

ROUNDS = 20

WRITING_FAILED = 7

FAULTS = {
    "openat": ("ENOSPC", "EMFILE"),
    "mkdir": ("ENOSPC",),
    "ftruncate": ("ENOSPC", "EIO"),
    "pwrite64": ("ENOSPC", "EIO"),
    "fdatasync": ("ENOSPC", "EIO"),
    "fsync": ("EIO",),
    "rename": ("EIO",),
    "unlink": ("EIO",),
    "rmdir": ("EIO",),
}
"""Which errors each call is answered with."""

SAID = {
    "ENOSPC": "No space left on device",
    "EIO": "Input/output error",
    "EMFILE": "Too many open files",
}

FIXED = {"ENOSPC": "free space on that disk", "EMFILE": "raise the limit of open files"}


def make_job(recipe: Path, name: str, *options: str, old: Path | None = None) -> Job:
    folder = recipe.parent / "jobs" / name
    folder.mkdir(parents=True)
    if old:
        shutil.copytree(old, folder / "out")
    settings = {**ALL_AT_ONCE, "CRASH_ONE_THREAD": "1"}
    return Job(
        recipe=recipe,
        folder=folder,
        options=("-q", "--threads", "1", *(["--overwrite"] if old else []), *options),
        settings=tuple(settings.items()),
    )


def is_harmless(call: Call) -> bool:
    """Whether a run can do without: the holder's name in the lock, the last empty folder, and
    removing what is not there."""
    of_lock = "lock" in call.line and call.name in ("ftruncate", "write")
    return of_lock or call.name == "rmdir" or "ENOENT" in call.line


def refused(job: Job, done: CompletedProcess[str], said: str, fix: str) -> str:
    """What is wrong with how a job failed; nothing if it is one message with its fix."""
    if done.returncode != WRITING_FAILED or done.stdout:
        return f"ended with {done.returncode}: {done.stdout}{done.stderr}"
    first, *rest = done.stderr.splitlines()
    if str(job.out) not in first or said not in first:
        return f"another message: {done.stderr}"
    if fix and not rest[0].startswith(f"  fix: {fix}"):
        return f"no fix: {done.stderr}"
    others = rest[1:] if fix else rest
    if others and (len(others) > 1 or "are kept in" not in others[0]):
        return f"more than one message: {done.stderr}"
    return ""


def failed_at(call: Call, error: str, job: Job, allowed: Iterable[Files], want: Files) -> str:
    """Fails one call of a job, then runs it again; what went wrong, for people."""
    done = job.run(*strace([f"{call.name}:error={error}:when={call.when}"]))
    what = f"{error} at {call}\n  {done.returncode} {done.stderr}"
    if done.returncode == 0 and is_harmless(call):
        if job.files() != want:
            return f"{what}  the bytes are others"
    elif wrong := refused(job, done, SAID[error], FIXED.get(error, "")):
        return f"{what}  {wrong}"
    if job.files() not in allowed:
        return f"{what}  the output is not whole"
    if job.files() != want:
        again = job.run()
        if again.returncode:
            return f"{what}  again: {again.returncode} {again.stderr}"
    elif job.work.exists():
        again = job.run()
        if again.returncode not in (0, 6):
            return f"{what}  again: {again.returncode} {again.stderr}"
    if job.files() != want:
        return f"{what}  the bytes are others"
    if set(job.left()) - {"out"}:
        return f"{what}  {job.left()} is left"
    shutil.rmtree(job.folder)
    return ""


@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwritten"])
def test_each_failure_of_the_disk_is_one_message_and_costs_no_byte(
    overwrite: bool, tmp_path: Path
) -> None:
    recipe = tiny_recipe(tmp_path)
    old = old_checkpoint(tmp_path / "old") if overwrite else None
    traced = make_job(recipe, "traced", old=old)
    before = traced.files()
    calls = traced.trace(tmp_path / "trace")
    want = traced.files()
    if overwrite:  # before, all is as it is with a new output
        first = next(i for i, call in enumerate(calls) if call.name == "renameat2")
        calls = calls[first + 1 :]
    faults = [(call, error) for call in calls for error in FAULTS.get(call.name, ())]
    assert len(faults) >= (4 if overwrite else 90)

    def outcome(number: int) -> str:
        call, error = faults[number]
        job = make_job(recipe, str(number), old=old)
        return failed_at(call, error, job, (before, want), want)

    with ThreadPoolExecutor(2) as pool:
        wrong = [text for text in pool.map(outcome, range(len(faults))) if text]
    assert not wrong, "\n".join(wrong)


def test_disk_that_fails_from_some_call_on_and_for_good_is_one_message(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    whole = make_job(recipe, "whole")
    assert whole.run().returncode == 0
    for when in (1, 2, 5, 8):
        job = make_job(recipe, str(when))
        done = job.run(*strace([f"pwrite64:error=ENOSPC:when={when}+"]))
        assert not refused(job, done, SAID["ENOSPC"], FIXED["ENOSPC"]), done.stderr
        assert not job.out.exists()
        again = job.run()
        assert again.returncode == 0, again.stderr
        assert job.files() == whole.files()
        assert job.left() == ["out"]


def test_limit_of_file_size_below_a_shard_leaves_nothing(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    job = make_job(recipe, "job")
    done = job.run("prlimit", "--fsize=2000")
    assert not refused(job, done, "File too large", "a file size limit is in force"), done.stderr
    assert job.left() == []


def test_limit_of_file_size_met_by_the_tokenizer_keeps_the_tensors(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    for model in "ab":
        (tmp_path / model / "tokenizer.json").write_bytes(b" " * 100_001)
    whole = make_job(recipe, "whole")
    assert whole.run().returncode == 0
    job = make_job(recipe, "job")
    done = job.run("prlimit", "--fsize=60000")  # the first write of it is a short one
    assert not refused(job, done, "File too large", "a file size limit is in force"), done.stderr
    assert "5 tensors are kept in" in done.stderr
    assert (job.work / "checkpoint" / "tokenizer.json").stat().st_size == 60_000
    assert job.run().returncode == 0
    assert job.files() == whole.files()
    assert job.left() == ["out"]


@pytest.mark.parametrize("limit", [16, 24, 40, 64, 96])
def test_limit_of_open_files_is_one_message_with_the_fix(limit: int, tmp_path: Path) -> None:
    tiny_llama(tmp_path / "a", 12, shards=1)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "models: {a: ./a}\nresult: a\noutput: {path: ./unused, max_shard_size: 256}\n"
    )
    job = make_job(recipe, "job")
    done = job.run("prlimit", f"--nofile={limit}")
    said, fix = SAID["EMFILE"], FIXED["EMFILE"]
    assert not refused(job, done, said, fix), refused(job, done, said, fix)
    assert job.left() == []
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert job.run("prlimit", f"--nofile={min(hard, 1024)}").returncode == 0
    assert job.left() == ["out"]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merge of two models of 50 MB: half a second of work for the threads."""
    folder = tmp_path_factory.mktemp("large")
    for name, seed in (("a", 1), ("b", 2)):
        tensors = llama_tensors(6, hidden=512, vocab=4096, seed=seed)
        write_checkpoint(folder / name, tensors, llama_config(6, hidden=512, vocab=4096))
    assert sum(np.prod(values.shape) for values in tensors.values()) * 2 > 30e6
    path = folder / "recipe.yaml"
    path.write_text(
        "models: {a: ./a, b: ./b}\n"
        "result: {linear: {models: [a, b], weights: [0.3, 0.7]}}\n"
        "output: {path: ./unused, max_shard_size: 10MB}\n"
    )
    return path


def is_at_work(job: Job, pid: int) -> bool:
    """Whether a process has the lock: before, it has nothing to stop, and no handler of signals."""
    lock = job.work / "lock"
    try:
        return f'"pid": {pid},' in lock.read_text()
    except FileNotFoundError:
        return False


def stopped(job: Job, number: signal.Signals, seconds: float) -> tuple[int, float, str]:
    """Sends a signal so long after the work began; exit code, seconds it took to end, stderr."""
    with job.start() as process:
        deadline = time.monotonic() + 30
        while not is_at_work(job, process.pid) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(seconds)
        process.send_signal(number)
        sent = time.monotonic()
        _, err = process.communicate(timeout=30)
    return process.returncode, time.monotonic() - sent, err


def test_run_stopped_at_random_times_goes_on_and_gives_the_same_bytes(
    large: Path, tmp_path: Path
) -> None:
    settings = (("CRASH_BATCH_SECONDS", "0.02"),)

    def job_of(threads: int) -> Job:
        folder = tmp_path / "place"
        folder.mkdir(exist_ok=True)
        options = ("-q", "--threads", str(threads))
        return Job(recipe=large, folder=folder, options=options, settings=settings)

    began = time.monotonic()
    assert job_of(2).run().returncode == 0
    usual = time.monotonic() - began
    want = job_of(1).files()
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    endings, went_on = set(), 0
    codes = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
    at_once = list(codes)  # each comes once when all work is still to be done
    for number in range(ROUNDS):
        shutil.rmtree(job_of(1).out)
        for _ in range(chance.randint(1, 3)):
            job = job_of(chance.randint(1, 9))
            how, late = (
                (at_once.pop(), 0.0)
                if at_once
                else (chance.choice(list(codes)), chance.uniform(0, usual / 2))
            )
            code, seconds, err = stopped(job, how, late)
            what = f"seed {seed}, round {number}: {how.name} {code} {err}"
            finished = job.files() == want
            # An interpreter that is about to end has no handlers any more.
            assert code in (0, codes[how]) or (code == -how and finished), what
            endings.add(code)
            assert seconds < 2, what
            assert finished or (code != 0 and not job.out.exists()), what
            record = read_journal(job.work / "journal")
            if code in (130, 143):
                kept = record is not None and bool(record.digests)
                assert ("are kept in" in err) == kept, what
            if finished:
                break
            went_on += job.work.exists()
        last = job_of(chance.randint(1, 9))
        if last.work.exists() or not last.out.exists():
            done = last.run()
            assert done.returncode == 0, f"seed {seed}, round {number}: {done.stderr}"
        assert last.files() == want, f"seed {seed}, round {number}"
        assert last.left() == ["out"], f"seed {seed}, round {number}"
    assert endings >= {130, 143, -9}, f"seed {seed}"
    assert went_on, f"seed {seed}"
