"""A training that is stopped at any time goes on by the same command, as if it had not been."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tensorsurgeon.checkpoint import MANIFEST_NAME, read_manifest
from tests.cli.checkpoints import file_bytes
from tests.cli.processes import fault
from tests.trainer.runs import (
    REPOSITORY,
    apply_surgery,
    environment,
    events_of,
    losses_of,
    write_run,
)
from tests.trainer.warm import Started, Warm, warm

Tokens = tuple[Path, Path]

STEPS = 10
KILLS = 6


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with warm(tmp_path_factory.mktemp("told")) as made:
        yield made


@pytest.fixture(scope="module")
def grown(random_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    expression = {"depth_up_scale": {"model": "base", "remove": 1}}
    return apply_surgery(tmp_path_factory.mktemp("grown"), random_llama, expression)


def make_run(
    folder: Path, model: Path, base: Path, tokens: Tokens, name: str = "run", **changes: Any
) -> Path:
    """A run file of the same text wherever it is, slow enough to be stopped on its way."""
    settings: dict[str, Any] = {
        "folder": f"./{name}",
        "output": {"path": "./out"},
        "steps": STEPS,
        "preset": "dus",
        "evaluate": {"every": 1, "sequences": 8, "baseline": str(base)},
        "checkpoint": {"every": 3},
        "schedule": {"warm_up": 3},
    }
    return write_run(folder / f"{name}.yaml", model, tokens, **(settings | changes))


@pytest.fixture(scope="module")
def whole(
    command: Warm,
    grown: Path,
    random_llama: Path,
    tokens: Tokens,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A training that nothing has interrupted."""
    run = make_run(tmp_path_factory.mktemp("whole"), grown, random_llama, tokens)
    done = command.run(run)
    assert done.returncode == 0, done.stderr
    assert [event["step"] for event in events_of(run, "step")] == [*range(1, STEPS + 1)]
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """The same training, not begun."""
    return Path(shutil.copy(whole, tmp_path / whole.name))


MEASURED = {
    "step": ("step", "loss", "gradient_norm", "learning_rate", "tokens", "skipped"),
    "evaluation": ("step", "loss", "tokens"),
    "baseline": ("name", "loss", "tokens"),
    "layers": ("step", "gradient_norms", "moved"),
    "seams": ("step", "seams"),
}
"""Of each event, what no interruption may change."""


def measured(run: Path) -> dict[str, Any]:
    return {
        kind: [[event[key] for key in keys] for event in events_of(run, kind)]
        for kind, keys in MEASURED.items()
    }


def written(folder: Path) -> dict[str, Any]:
    """The bytes of a checkpoint; the manifest without when it was made."""
    files: dict[str, Any] = file_bytes(folder)
    del files[MANIFEST_NAME]
    return files | {"manifest": replace(read_manifest(folder / MANIFEST_NAME), created={})}


def assert_same_training(one: Path, other: Path) -> None:
    assert measured(one) == measured(other)
    assert written(one.parent / "out") == written(other.parent / "out")
    assert not (one.parent / ".out.part").exists()


def has_taken(run: Path, step: int) -> bool:
    metrics = run.with_suffix("") / "metrics.jsonl"
    return metrics.exists() and f'"event": "step", "step": {step},' in metrics.read_text()


def newest(run: Path) -> int:
    """The step of the newest checkpoint; 0 without one."""
    folders = (run.with_suffix("") / "checkpoints").glob("step-????????")
    return max((int(path.name.removeprefix("step-")) for path in folders), default=0)


def resumed_at(run: Path) -> list[int | None]:
    return [event["resumed_at"] for event in events_of(run, "run")]


def test_sigterm_saves_and_the_same_command_goes_on_bit_for_bit(
    run: Path, whole: Path, command: Warm
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorsurgeon", "train", str(run)],
        cwd=REPOSITORY,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not has_taken(run, 4):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.003)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143, told
    (end,) = events_of(run, "end")
    assert end["reason"] == "terminated"
    assert STEPS > end["step"] == newest(run) >= 4
    assert (run.with_suffix("") / "report.html").exists()
    assert not (run.parent / "out").exists()
    done = command.run(run)
    assert done.returncode == 0, done.stderr
    assert f"going on from step {end['step']}" in done.stderr
    assert resumed_at(run) == [None, end["step"]]
    assert_same_training(run, whole)


def test_ctrl_c_and_a_closed_terminal_save_as_well(run: Path, whole: Path, command: Warm) -> None:
    for step, number, code in ((2, signal.SIGINT, 130), (5, signal.SIGHUP, 129)):
        process = command.start(run)
        process.send(number, once=partial(has_taken, run, step))
        done = process.wait()
        assert done.returncode == code, done.stderr
        assert ("interrupted" in done.stderr) == (code == 130)
        assert STEPS > newest(run) >= step
    assert command.run(run).returncode == 0
    assert_same_training(run, whole)


def test_training_killed_at_random_moments_is_the_same_in_the_end(
    run: Path, whole: Path, command: Warm
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    usual = events_of(whole, "step")[-1]["seconds"] + 1
    went_on = 0
    for number in range(KILLS):
        process = command.start(run)
        time.sleep(chance.uniform(0.5, usual))
        process.kill(signal.SIGKILL)
        done = process.wait()
        what = f"seed {seed}, kill {number}: {done.returncode} {done.stderr}"
        assert done.returncode in (-signal.SIGKILL, 0), what
        went_on += STEPS > newest(run) > 0
        if newest(run) == STEPS and went_on:
            break
        if newest(run) == STEPS:
            shutil.rmtree(run.parent / "run")
            shutil.rmtree(run.parent / "out", ignore_errors=True)
    done = command.run(run)
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    assert_same_training(run, whole)


def start_ranks(command: Warm, run: Path, count: int) -> list[Started]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = map(str, range(count))
    return [command.start(run, env=together | {"RANK": rank, "LOCAL_RANK": rank}) for rank in ranks]


def test_any_number_of_ranks_goes_on_with_the_same_data(
    run: Path, whole: Path, command: Warm
) -> None:
    """SIGTERM comes to some ranks or all, and ends all of them after the same step."""
    parts = ((1, [0], 2), (2, [1], 4), (2, [0, 1], 6))
    for count, told, step in parts:
        ranks = start_ranks(command, run, count)
        ranks[told[0]].send(signal.SIGTERM, once=partial(has_taken, run, step))
        for rank in told[1:]:
            ranks[rank].kill(signal.SIGTERM)
        ends = [rank.wait() for rank in ranks]
        assert [end.returncode for end in ends] == [143] * count, ends
        assert STEPS > newest(run) >= step
    done = command.run(run)
    assert done.returncode == 0, done.stderr
    assert [event["world_size"] for event in events_of(run, "run")] == [1, 2, 2, 1]
    assert [event["step"] for event in events_of(run, "step")] == [*range(1, STEPS + 1)]
    assert losses_of(run) == pytest.approx(losses_of(whole), abs=1e-5)


def test_sigterm_to_torchrun_saves_and_the_same_command_goes_on(
    run: Path, whole: Path, command: Warm
) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    process = subprocess.Popen(
        [*torchrun, "-m", "tensorsurgeon.trainer", str(run)],
        cwd=REPOSITORY,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not has_taken(run, 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.003)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "[rank" not in told, told  # as each line of a rank's traceback begins
    (end,) = events_of(run, "end")
    assert end["reason"] == "terminated"
    assert STEPS > end["step"] == newest(run) >= 3
    done = command.run(run)
    assert done.returncode == 0, done.stderr
    assert losses_of(run) == pytest.approx(losses_of(whole), abs=1e-5)


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
