"""What becomes of a training's result: interrupted while written, there already, made anew."""

import os
import shutil
import signal
import socket
from pathlib import Path

import pytest

from tests.cli.processes import fault
from tests.trainer.interrupted import (
    STEPS,
    Tokens,
    assert_same_training,
    grow,
    has_taken,
    make_run,
    measured,
    newest,
    resumed_at,
    written,
)
from tests.trainer.runs import events_of
from tests.trainer.warm import Warm, warm


@pytest.fixture(scope="module")
def whole(
    command: Warm, random_llama: Path, tokens: Tokens, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A training that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    grown = grow(folder / "grown", random_llama)
    run = make_run(folder, grown, random_llama, tokens)
    done = command.run(run)
    assert done.returncode == 0, done.stderr
    assert [event["step"] for event in events_of(run, "step")] == [*range(1, STEPS + 1)]
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """The same training, not begun."""
    return Path(shutil.copy(whole, tmp_path / whole.name))


@pytest.mark.parametrize(
    ("injected", "code", "there"),
    [
        ("pwrite64:signal=SIGTERM:when=1", 143, False),
        ("rmdir:signal=SIGKILL:when=1", -signal.SIGKILL, True),
    ],
    ids=["before-it-is-there", "after"],
)
def test_interruption_while_the_result_is_written_costs_no_step(
    injected: str, code: int, there: bool, run: Path, whole: Path, command: Warm, tmp_path: Path
) -> None:
    """The last step is saved by then; all system calls named are of the writing of the result."""
    text = run.read_text().replace("every: 3", "every: 100")
    assert text != run.read_text()
    run.write_text(text)
    with warm(tmp_path, *fault(injected)) as stopped:
        done = stopped.run(run)
    assert done.returncode == code, done.stderr
    assert newest(run) == STEPS
    assert (run.parent / "out").exists() == there
    before = measured(run)
    done = command.run(run)
    assert done.returncode == 0, done.stderr
    assert resumed_at(run) == [None, STEPS]
    assert measured(run) == before == measured(whole)
    assert not (run.parent / ".out.part").exists()
    got, want = written(run.parent / "out"), written(whole.parent / "out")
    # The run file, which card and manifest show, has another text.
    assert {n: b for n, b in got.items() if n.endswith(".safetensors")} == {
        n: b for n, b in want.items() if n.endswith(".safetensors")
    }


def test_finished_run_run_again_does_nothing(whole: Path, command: Warm) -> None:
    made = whole.parent / "out"
    before, identity = measured(whole), (made.stat().st_ino, made.stat().st_mtime_ns)
    done = command.run(whole)
    assert done.returncode == 0, done.stderr
    assert "is there already" in done.stderr
    assert measured(whole) == before
    assert (made.stat().st_ino, made.stat().st_mtime_ns) == identity


def test_no_resume_begins_anew_but_does_not_replace_the_result_unasked(
    whole: Path, run: Path, command: Warm
) -> None:
    shutil.copytree(whole.parent / "out", run.parent / "out")
    shutil.copytree(whole.parent / "run", run.parent / "run")
    beside = run.parent / "run" / "checkpoints" / "step-by-step.txt"
    beside.touch()
    made = (run.parent / "out").stat().st_ino
    refused = command.run(run, "--no-resume")
    assert refused.returncode == 6
    assert refused.stderr.endswith("out: is already there\n  fix: --overwrite replaces it\n")
    assert newest(run) == STEPS
    done = command.run(run, "--no-resume", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert resumed_at(run) == [None]
    assert (run.parent / "out").stat().st_ino != made
    assert beside.exists()
    assert_same_training(run, whole)


def test_result_of_another_training_is_replaced_only_by_overwrite(
    whole: Path, run: Path, command: Warm
) -> None:
    shutil.copytree(whole.parent / "out", run.parent / "out")
    refused = command.run(run)
    assert refused.returncode == 6
    assert "out: is already there" in refused.stderr
    assert sorted(path.name for path in run.parent.iterdir()) == ["out", "run.yaml"]
    assert command.run(run, "--overwrite").returncode == 0
    assert_same_training(run, whole)


def test_second_training_in_the_same_folder_is_told_of_the_first(run: Path, command: Warm) -> None:
    first = command.start(run)
    first.send(signal.SIGSTOP, once=lambda: has_taken(run, 1))
    try:
        second = command.run(run)
        assert second.returncode == 8
        assert f"{run.parent}/run: another training is at work here: " in second.stderr
        assert f"process {first.pid} on {socket.gethostname()} since " in second.stderr
        assert "\n  fix: wait for it, stop it, or name another folder" in second.stderr
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert first.wait().returncode == 0
    assert [event["step"] for event in events_of(run, "step")] == [*range(1, STEPS + 1)]
