"""The proof of low memory at a small scale: it passes, and fails where it should."""

import json
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.bench.compare import compare
from tests.bench.jobs import JOBS, Job, Workspace
from tests.conftest import ROOT
from tests.low_memory import limits, sparse
from tests.low_memory.proof import CONTROL, MERGES, TIMES_THE_LIMIT, TINY, fitted, halved, room_for

RLIMIT = next(limit for limit in limits.kinds() if limit.kind == "rlimit")


def prove(folder: Path, *arguments: str) -> tuple[CompletedProcess[str], dict[str, Any]]:
    """Run the proof as `make` does, at the small scale; its streams and its JSON."""
    command = [sys.executable, "-m", "tests.low_memory", "--scale", "small"]
    done = subprocess.run(
        [*command, "--folder", str(folder), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    report = folder / "low_memory.json"
    return done, json.loads(report.read_text()) if report.exists() else {}


def test_merges_of_eight_times_the_limit_keep_within_it(tmp_path: Path) -> None:
    done, report = prove(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    claims = [claim for merge in report["merges"] for claim in merge["claims"]]
    assert len(claims) == 12
    assert all(claim["holds"] for claim in claims)
    assert f"Limit: {report['limit']}." in done.stdout
    assert "| SLERP | all layers |" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["low_memory.json"]


def test_proof_fails_where_the_engine_loads_everything(tmp_path: Path) -> None:
    done, report = prove(tmp_path, "--engine", CONTROL)
    assert done.returncode == 1
    assert "does not hold: it ends within 120 MB" in done.stderr
    failing = {
        claim["text"]
        for merge in report["merges"]
        for claim in merge["claims"]
        if not claim["holds"]
    }
    assert failing == {"it ends within 120 MB", "it ends within 78 MB"}


def python(program: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", program]


def test_a_failure_other_than_for_memory_is_no_death_of_the_limit(tmp_path: Path) -> None:
    for ending in ("raise SystemExit(1)", "raise ValueError", "import os; os.kill(os.getpid(), 9)"):
        outcome = RLIMIT.run(python(ending), limit=64_000_000, log=tmp_path / "log")
        assert outcome.code
        assert not RLIMIT.died_of_it(outcome)


def test_a_limit_that_holds_nobody_is_not_taken(tmp_path: Path) -> None:
    class Sieve(limits.DataLimit):
        """Says it is in force, and lets everything through."""

        def _place(self, limit: int) -> Any:
            return super()._place(100 * limit)

        def _was_in_force(self, outcome: limits.Outcome, limit: int) -> bool:
            return True

    with pytest.raises(limits.LimitError, match="four times the limit ended with: finished"):
        Sieve().check(tmp_path)


def test_a_limit_other_than_the_one_asked_for_is_not_taken(tmp_path: Path) -> None:
    class Wide(limits.DataLimit):
        def _place(self, limit: int) -> Any:
            return super()._place(2 * limit)

    with pytest.raises(limits.LimitError, match="was not in force"):
        Wide().run(python("pass"), limit=64_000_000, log=tmp_path / "log")


def test_peak_is_of_the_process_alone(tmp_path: Path) -> None:
    holding = python("b'x' * 100_000_000")
    ballast = b"x" * 200_000_000
    outcome = limits.run_without_limit(holding, log=tmp_path / "log")
    assert len(ballast) > outcome.peak_resident > 100_000_000


def test_a_process_that_hangs_is_terminated_and_not_taken_for_a_victim(tmp_path: Path) -> None:
    sleeping = python("import time; time.sleep(60)")
    outcome = limits.confined([], {}, sleeping, log=tmp_path / "log", deadline=1)
    assert outcome.how == "killed by SIGTERM"
    assert not any(limit.died_of_it(outcome) for limit in limits.kinds())


def test_control_writes_the_average(tmp_path: Path) -> None:
    workspace = workspace_of(JOBS["slerp"], tmp_path)
    average = {"linear": {"models": ["a", "b"]}}
    job = Job(name="mean", title="mean", models=("a", "b"), merged=lambda _: average)
    for module, name in (("tensorsurgeon", "ours"), (CONTROL, "theirs")):
        command = workspace.our_command(job, module=module, out=tmp_path / name)
        subprocess.run(command, cwd=ROOT, check=True)
    agreement = compare(tmp_path / "ours", tmp_path / "theirs")
    assert agreement.elements == TINY.parameters
    assert agreement.differing == 0


def test_sparse_models_take_the_arc_and_not_the_fallback(tmp_path: Path) -> None:
    job = JOBS["slerp"]
    workspace = workspace_of(job, tmp_path)
    command = [part for part in workspace.our_command(job) if part != "-q"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "linear" not in done.stdout + done.stderr


def test_sparse_models_take_little_room(tmp_path: Path) -> None:
    shape = halved(halved(MERGES["small"][0].shape))
    sparse.build(shape, tmp_path / "a", seed=0)
    room = sum(path.stat().st_blocks * 512 for path in (tmp_path / "a").iterdir())
    assert room < shape.size / 64


def workspace_of(job: Job, folder: Path) -> Workspace:
    """Tiny models for a job."""
    workspace = Workspace(folder=folder, shape=TINY)
    for seed, name in enumerate(job.models):
        sparse.build(TINY, workspace.model(name), seed=seed)
    return workspace


@pytest.mark.parametrize("merge", [merge for scale in MERGES.values() for merge in scale])
def test_sizes_double_twice_and_fit_the_disk(merge: Any) -> None:
    full = merge.shape
    assert full.size >= TIMES_THE_LIMIT * merge.limit
    half = halved(full)
    assert 2 * half.size <= full.size < 2 * half.with_layers(half.layers + 1).size
    assert 4 * halved(half).size <= full.size
    assert fitted(merge, room_for(merge.job, full)) == merge


def test_models_are_cut_to_the_disk_but_not_below_eight_limits() -> None:
    merge = MERGES["7B"][0]
    cut = fitted(merge, 10_000_000_000)
    assert TIMES_THE_LIMIT * merge.limit <= cut.shape.size < 10_000_000_000
    assert room_for(merge.job, merge.shape.with_layers(cut.shape.layers + 1)) > 10_000_000_000
    with pytest.raises(ValueError, match="GB of disk"):
        fitted(merge, 3_000_000_000)
