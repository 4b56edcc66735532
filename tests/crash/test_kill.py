"""The process is killed at every system call that touches the output, one run for each.

At every such instant the output path holds the old checkpoint complete, the new one complete, or
nothing; and the same command then gives the bytes of an uninterrupted run, and leaves nothing else.
"""

import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.jobs import ALL_AT_ONCE, Call, Files, Job, old_checkpoint, strace, tiny_recipe

BATCHES = {"each_tensor_at_once": ALL_AT_ONCE, "all_tensors_in_one_batch": {}}

NO_EXCHANGE = "renameat2:error=EINVAL"
"""What a file system says that cannot exchange two folders."""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tiny_recipe(tmp_path)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return old_checkpoint(tmp_path / "old")


def make_job(
    recipe: Path, name: str, batch: dict[str, str], *, old: Path | None = None, options: str = ""
) -> Job:
    """A job in a folder of its own, where the old checkpoint is already, if there is one."""
    folder = recipe.parent / "jobs" / name
    folder.mkdir(parents=True)
    if old:
        shutil.copytree(old, folder / "out")
    arguments = ("-q", "--threads", "1", *(["--overwrite"] if old else []), *options.split())
    settings = {"CRASH_ONE_THREAD": "1", **batch}
    return Job(recipe=recipe, folder=folder, options=arguments, settings=tuple(settings.items()))


def killed_at(
    call: Call, job: Job, allowed: Iterable[Files], want: Files, injected: tuple[str, ...] = ()
) -> str:
    """Kills the job at a call, then runs it again; what went wrong, for people."""
    done = job.run(*strace([f"{call.name}:signal=SIGKILL:when={call.when}", *injected]))
    if done.returncode != -9:
        return f"{call}\n  was not killed, but ended with {done.returncode}: {done.stderr}"
    if job.files() not in allowed:
        return f"{call}\n  what is at the output path is not whole: {sorted(job.files() or ())}"
    left = job.left()
    again = job.run(*(strace(injected) if injected else ()))
    what = f"{call}\n  left {left}; again: {again.returncode} {again.stderr}"
    if again.returncode != 0:
        return what
    if job.files() != want:
        return f"{what}\n  the bytes are others"
    if job.left() != ["out"]:
        return f"{what}\n  {job.left()} is left"
    shutil.rmtree(job.folder)
    return ""


def assert_each(outcomes: Iterable[str]) -> None:
    wrong = [outcome for outcome in outcomes if outcome]
    assert not wrong, "\n".join(wrong)


def names_of(calls: Iterable[Call]) -> set[str]:
    return {call.name for call in calls}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_new_output_is_whole_or_absent_wherever_a_run_is_killed(
    recipe: Path, batch: dict[str, str], tmp_path: Path
) -> None:
    job = make_job(recipe, "traced", batch)
    calls = job.trace(tmp_path / "trace")
    want = job.files()
    assert want
    assert names_of(calls) >= {"mkdir", "pwrite64", "fdatasync", "fsync", "rename", "unlink"}

    def outcome(number: int) -> str:
        one = make_job(recipe, str(number), batch)
        return killed_at(calls[number], one, (None, want), want)

    with ThreadPoolExecutor(2) as pool:
        assert_each(pool.map(outcome, range(len(calls))))


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_overwritten_output_is_the_old_or_the_new_one_wherever_a_run_is_killed(
    recipe: Path, old: Path, batch: dict[str, str], tmp_path: Path
) -> None:
    job = make_job(recipe, "traced", batch, old=old)
    before = job.files()
    calls = job.trace(tmp_path / "trace")
    want = job.files()
    assert want != before
    if "renameat2" not in names_of(calls):
        pytest.skip("this system has no renameat2")

    def outcome(number: int) -> str:
        one = make_job(recipe, str(number), batch, old=old)
        return killed_at(calls[number], one, (before, want), want)

    with ThreadPoolExecutor(2) as pool:
        assert_each(pool.map(outcome, range(len(calls))))


def test_where_folders_cannot_be_exchanged_nothing_is_lost_wherever_a_run_is_killed(
    recipe: Path, old: Path, tmp_path: Path
) -> None:
    job = make_job(recipe, "traced", {}, old=old)
    before = job.files()
    calls = job.trace(tmp_path / "trace", NO_EXCHANGE)
    want = job.files()
    # Up to the exchange everything goes as it does where it succeeds.
    first = next(index for index, call in enumerate(calls) if call.name == "renameat2")
    assert [call.name for call in calls[first + 1 :]].count("rename") == 3

    def outcome(number: int) -> str:
        one = make_job(recipe, str(number), {}, old=old)
        return killed_at(calls[number], one, (None, before, want), want, (NO_EXCHANGE,))

    with ThreadPoolExecutor(2) as pool:
        assert_each(pool.map(outcome, range(first + 1, len(calls))))


def test_run_killed_while_it_goes_on_can_go_on_once_more(recipe: Path, tmp_path: Path) -> None:
    whole = make_job(recipe, "whole", ALL_AT_ONCE)
    calls = whole.trace(tmp_path / "trace")
    want = whole.files()
    # In the middle of the tensors: a run that goes on makes the rest of these calls.
    journalled = [call for call in calls if call.name == "pwrite64" and "journal" in call.line]
    half = f"pwrite64:signal=SIGKILL:when={journalled[2].when}"
    traced = make_job(recipe, "resumed", ALL_AT_ONCE)
    assert traced.run(*strace([half])).returncode == -9
    calls = traced.trace(tmp_path / "trace")
    assert traced.files() == want

    def outcome(number: int) -> str:
        one = make_job(recipe, str(number), ALL_AT_ONCE)
        assert one.run(*strace([half])).returncode == -9
        return killed_at(calls[number], one, (None, want), want)

    with ThreadPoolExecutor(2) as pool:
        # Every other call: each is also one that the tests above are killed at.
        assert_each(pool.map(outcome, range(0, len(calls), 2)))


def test_starting_over_is_killed_without_harm(recipe: Path, old: Path, tmp_path: Path) -> None:
    """`replace` of what an earlier run left is where journal and shards could come apart."""
    half = "pwrite64:signal=SIGKILL:when=7"
    traced = make_job(recipe, "traced", ALL_AT_ONCE)
    assert traced.run(*strace([half])).returncode == -9
    traced = replace(traced, options=(*traced.options, "--no-resume"))
    calls = traced.trace(tmp_path / "trace")
    want = traced.files()
    end = next(i for i, call in enumerate(calls) if call.name == "pwrite64" and i > 20)

    def outcome(number: int) -> str:
        one = make_job(recipe, str(number), ALL_AT_ONCE)
        assert one.run(*strace([half])).returncode == -9
        over = replace(one, options=(*one.options, "--no-resume"))
        done = over.run(*strace([f"{calls[number].name}:signal=SIGKILL:when={calls[number].when}"]))
        assert done.returncode == -9
        again = one.run()  # goes on, from whichever of the two runs is to be gone on from
        if again.returncode or one.files() != want or one.left() != ["out"]:
            return f"{calls[number]}\n  {again.returncode} {again.stderr} {one.left()}"
        return ""

    with ThreadPoolExecutor(2) as pool:
        assert_each(pool.map(outcome, range(end)))
