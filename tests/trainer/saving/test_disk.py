"""A disk that is full or fails: every rank is told, none hangs, and what was saved stays."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tensorsurgeon.errors import OutputError
from tests.trainer.saving.ranks import outcomes
from tests.trainer.saving.states import save_steps
from tests.trainer.saving.traced import Job, calls_of, trace

ROOT = Path(__file__).parents[3]

ERRORS = {
    "pwrite64": "ENOSPC",
    "fsync": "EIO",
    "fdatasync": "ENOSPC",
    "rename": "EIO",
    "unlink": "EIO",
    "rmdir": "EIO",
}

SAID = {"ENOSPC": "No space left on device", "EIO": "Input/output error"}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What ends how on a disk of its own that gets full, with 1 and with 2 ranks."""
    disk = tmp_path_factory.mktemp("disk")
    mount = f'mount -t tmpfs -o size=1600k none {disk} && exec "$@"'
    wrapper = ("unshare", "--map-root-user", "--mount", "sh", "-ec", mount, "sh")
    command = (sys.executable, "-m", "tests.trainer.saving.small_disk", str(disk), "1", "2")
    done = subprocess.run(
        [*wrapper, *command], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    outcomes: list[dict[str, Any]] = json.loads(done.stdout)
    return outcomes


@pytest.mark.parametrize("world", [1, 2])
def test_full_disk_is_told_to_all_ranks_at_once_and_costs_no_checkpoint(
    world: int, full: list[dict[str, Any]]
) -> None:
    told = full[world - 1]
    assert len(told["ends"]) == len(told["waited"]) == world
    for ends in (told["ends"], told["waited"]):
        assert all(end == ends[0] for end in ends)
        message, _ = ends[0]
        assert "checkpoints: saving step 3 failed: No space left on device" in message
        assert "; it needs 420 kB, and " in message
        free = int(message.partition("needs 420 kB, and ")[2].partition(" kB are free")[0])
        assert 100 < free < 420
        assert "\n  fix: free space there" in message
    assert told["left"] == ["step-00000001", "step-00000002"]
    assert told["found"] == [2] * world
    assert told["after"] == [[3, [3.0]]] * world


def test_each_failure_of_the_disk_is_told_to_all_ranks_and_costs_no_checkpoint(
    tmp_path: Path,
) -> None:
    """Of two saves with two ranks, at the first and last call of each name by the first."""
    whole = Job(folder=tmp_path / "whole", place=tmp_path / "place", world=2)
    calls = calls_of(trace(whole, tmp_path / "log"), whole.folder)
    # Either rank makes the folder: that one cannot is no failure. By `write` they speak to the
    # test as well; a full disk fails it.
    calls = [call for call in calls if call[0] not in ("mkdir", "write")]
    assert {name for name, _ in calls} == ERRORS.keys()
    last = dict(calls)
    first = dict(reversed(calls))
    points = sorted({*first.items(), *last.items()})
    for number, (name, when) in enumerate(points):
        job = Job(folder=tmp_path / f"{number}", place=tmp_path / f"place-{number}", world=2)
        what = f"{ERRORS[name]} at {name} {when}"
        ends = job.injected(f"{name}:error={ERRORS[name]}:when={when}")
        for end in ends:
            assert isinstance(end, OutputError), f"{what}: {end!r}"
            assert f"failed: {SAID[ERRORS[name]]}; it needs " in str(end), what
            assert f"{job.folder}: saving step " in str(end), what
        assert str(ends[0]) == str(ends[1]), what
        assert not list(job.folder.glob("*.part")), what
        job.check(job.told, what)


@pytest.mark.parametrize("world", [1, 2])
def test_folder_that_cannot_be_made_is_an_error_of_every_rank(world: int, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for end in outcomes(world, save_steps, tmp_path / "file" / "checkpoints", 1, [1]):
        assert isinstance(end, OutputError)
        assert f"{tmp_path}/file/checkpoints: cannot be made ready" in str(end)
