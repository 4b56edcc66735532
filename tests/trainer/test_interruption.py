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
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook
from transformers import LlamaModel

from tests.trainer.data.tokens import Written
from tests.trainer.interrupted import (
    STEPS,
    Tokens,
    assert_same_training,
    grow,
    has_taken,
    make_run,
    newest,
    resumed_at,
)
from tests.trainer.refusals import Trainer
from tests.trainer.runs import (
    REPOSITORY,
    environment,
    events_of,
    losses_of,
    train_quietly,
    write_run,
)
from tests.trainer.warm import Started, Warm, warm

KILLS = 6


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with warm(tmp_path_factory.mktemp("told")) as made:
        yield made


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
        said = f"stopped after step {newest(run)}, which is saved: the same command goes on\n"
        assert said in done.stderr
        assert STEPS > newest(run) >= step
    assert command.run(run).returncode == 0
    assert_same_training(run, whole)


def test_sigterm_while_the_held_out_loss_is_measured_takes_no_further_step(
    random_llama: Path, tokens: Tokens, tmp_path: Path
) -> None:
    run = write_run(
        tmp_path / "run.yaml",
        random_llama,
        tokens,
        steps=8,
        evaluate={"every": 4},
        log={"layers": 8},
    )
    passes = 0

    def interrupt(module: torch.nn.Module, *_: object) -> None:
        nonlocal passes
        if isinstance(module, LlamaModel) and not torch.is_grad_enabled():
            passes += has_taken(run, 4)
            if passes == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    with register_module_forward_hook(interrupt):
        outcome = train_quietly(run)
    assert passes > 1
    assert (outcome.signal, outcome.step) == (signal.SIGTERM, 4)
    assert train_quietly(run).step == 8
    assert [event["step"] for event in events_of(run, "evaluation")] == [0, 4, 8]


def learned(lengths: list[int]) -> Written:
    """Documents after a prompt of three tokens, of which nothing is learned."""
    return [([1, 2, 3, *range(7, 7 + n)], [False] * 3 + [True] * n) for n in lengths]


def test_learning_of_preferences_goes_on_bit_for_bit_as_well(
    random_llama: Path, command: Warm, tmp_path: Path
) -> None:
    maker = Trainer(
        command=command, model=random_llama, tokens=(tmp_path, tmp_path), folder=tmp_path
    )
    shards = maker.shards(learned([5 + n % 23 for n in range(80)]), kind="preference")
    runs = [
        write_run(
            tmp_path / f"{name}.yaml",
            random_llama,
            (shards, shards),
            stage="dpo",
            steps=STEPS,
            evaluate={"every": 1, "sequences": 4},
            checkpoint={"every": 3},
        )
        for name in ("whole", "parts")
    ]
    assert command.run(runs[0]).returncode == 0
    process = command.start(runs[1])
    process.send(signal.SIGTERM, once=partial(has_taken, runs[1], 2))
    assert process.wait().returncode == 143
    assert STEPS > newest(runs[1]) >= 2
    assert command.run(runs[1]).returncode == 0
    keys = ("step", "loss", "gradient_norm", "margin", "accuracy")
    whole, parts = ([[e[k] for k in keys] for e in events_of(run, "step")] for run in runs)
    assert parts == whole
    assert len(parts) == STEPS


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
