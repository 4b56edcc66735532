"""A training that is killed, at any time, goes on from a complete checkpoint of one step alone."""

import os
import random
import re
import signal
import time
from pathlib import Path

import pytest

from tests.trainer.saving.traced import Job, calls_of, trace

KILLS = 15


@pytest.fixture
def lines(tmp_path: Path) -> list[str]:
    """What strace tells of two saves, of which the second removes the first."""
    return trace(Job(folder=tmp_path / "whole", place=tmp_path / "place"), tmp_path / "log")


def test_training_killed_at_any_call_goes_on_from_a_whole_checkpoint(
    lines: list[str], tmp_path: Path
) -> None:
    calls = calls_of(lines, tmp_path / "whole")
    assert len(calls) == len(set(calls)) > 40
    # One write is as good as another.
    points = [call for i, call in enumerate(calls) if call[0] != "write" or i % 7 == 0]
    endings = set()
    for number, (name, when) in enumerate(points):
        job = Job(folder=tmp_path / f"{number}", place=tmp_path / f"place-{number}")
        assert job.injected(f"{name}:signal=SIGKILL:when={when}") == [None]
        assert not (job.place / "told-2").exists()
        endings.add(job.check(job.told, f"killed at {name} {when}"))
    assert endings == {0, 1, 2}


def test_training_killed_at_random_times_never_loses_what_it_has_saved(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    place = tmp_path / "place"
    ranks = Job(folder=tmp_path / "usual", place=place, world=2, steps=5).begin()
    began = time.monotonic()
    assert [rank.outcome() for rank in ranks] == [None, None]
    usual = time.monotonic() - began
    job = Job(folder=tmp_path / "run", place=tmp_path / "other", world=2, steps=1000)
    newest = 0
    for number in range(KILLS):
        ranks = job.begin()
        time.sleep(chance.uniform(0, usual))
        victims = chance.choice([ranks, ranks[:1], ranks[1:]])
        for rank in victims:
            os.kill(rank.process.pid, signal.SIGKILL)
        ends = [rank.outcome() for rank in ranks]
        what = f"seed {seed}, kill {number}: {ends}"
        # The others notice, and end with an error.
        for rank, end in zip(ranks, ends, strict=True):
            assert (end is None) == (rank in victims), what
        newest = job.check(max(newest, job.told), what)
    assert newest > 5, f"seed {seed}"


def test_every_byte_is_flushed_before_a_checkpoint_gets_its_name(
    lines: list[str], tmp_path: Path
) -> None:
    """DCP flushes its `.metadata` before it has written all of it."""
    folder = str(tmp_path / "whole")
    calls = [
        (line.split()[1].partition("(")[0], re.findall(rf'[<"]({folder}[^>"]*)', line))
        for line in lines
        if folder in line
    ]
    written: dict[str, int] = {}
    flushed: dict[str, int] = {}
    named = 0
    for number, (name, paths) in enumerate(calls):
        if name in ("write", "pwrite64"):
            written[paths[0]] = number
        elif name in ("fsync", "fdatasync"):
            flushed[paths[0]] = number
        elif name == "rename" and paths[1].endswith(".metadata"):
            written[paths[1]] = written.pop(paths[0])
        elif name == "rename":
            inside = {path: at for path, at in written.items() if path.startswith(paths[0] + "/")}
            if paths[0].endswith(".part"):
                assert len(inside) == 3
                assert all(flushed[path] > at for path, at in inside.items())
                assert flushed[paths[0]] > max(inside.values())
                named += 1
            assert calls[number + 1] == ("fsync", [folder])
    assert named == 2
