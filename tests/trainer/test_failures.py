"""What fails while a training is at work: one message, and what was saved before stays."""

import json
import signal
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cli.processes import namespace
from tests.trainer.refusals import Tokens, Trainer
from tests.trainer.runs import events_of, losses_of, tiny_llama, write_run
from tests.trainer.warm import Warm, warm


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folders, each of which the processes see as a disk of its own."""
    folder = tmp_path_factory.mktemp("disks")
    for name in ("small", "tiny", "locked"):
        (folder / name).mkdir()
    return folder


@pytest.fixture(scope="module")
def command(disks: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    setup = f"""
        mount -t tmpfs -o size=4m none {disks}/small
        mount -t tmpfs -o size=64k none {disks}/tiny
        mount -t tmpfs -o ro none {disks}/locked
        """
    with warm(tmp_path_factory.mktemp("told"), *namespace(setup)) as made:
        yield made


@pytest.fixture
def trainer(command: Warm, random_llama: Path, tokens: Tokens, tmp_path: Path) -> Trainer:
    return Trainer(command=command, model=random_llama, tokens=tokens, folder=tmp_path)


@pytest.fixture
def run(trainer: Trainer) -> Path:
    settings: dict[str, Any] = {"steps": 4, "checkpoint": {"every": 2}}
    return write_run(trainer.run, trainer.model, trainer.tokens, **settings)


def seen_by(command: Warm, path: Path) -> Path:
    """A path as the processes see it, whose disks are not this one's."""
    return Path(f"/proc/{command.pid}/root{path}")


def steps_saved(folder: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (folder / "checkpoints").glob("step-*"))


def test_disk_that_gets_full_costs_no_checkpoint_and_is_told_once(
    trainer: Trainer, disks: Path
) -> None:
    settings: dict[str, Any] = {"steps": 6, "checkpoint": {"every": 2}}
    whole = write_run(trainer.run, trainer.model, trainer.tokens, **settings)
    assert trainer.command.run(whole).returncode == 0
    disk = seen_by(trainer.command, disks / "small")
    folder = f"{disks}/small/run"
    path = trainer.folder / "full.yaml"
    run = write_run(path, trainer.model, trainer.tokens, folder=folder, **settings)
    process = trainer.command.start(run)
    metrics = disk / "run" / "metrics.jsonl"
    process.send(
        signal.SIGSTOP, once=lambda: metrics.exists() and '"step": 0' in metrics.read_text()
    )
    (disk / "ballast").write_bytes(b" " * 1_900_000)  # two checkpoints fit beside it, not three
    process.kill(signal.SIGCONT)
    done = process.wait()
    assert done.returncode == 7, done.stderr
    assert "Traceback" not in done.stderr
    said = f"{folder}/checkpoints: saving step 6 failed: No space left on device; it needs "
    assert done.stderr.count(said) == 1
    assert "\n  fix: free space there, and the same command goes on\n" in done.stderr
    assert steps_saved(disk / "run") == [2, 4]
    (disk / "ballast").unlink()
    done = trainer.command.run(run)
    assert done.returncode == 0, done.stderr
    assert "going on from step 4" in done.stderr
    lines = (disk / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [event for event in map(json.loads, lines) if event["event"] == "step"]
    assert [event["loss"] for event in steps] == losses_of(whole)


def test_disk_without_room_for_checkpoints_is_told_before_the_first_step(
    trainer: Trainer, disks: Path
) -> None:
    trainer.refused(
        6,
        f"{disks}/tiny/run: 2 checkpoints of ",
        " are free",
        "\n  fix: free space there, name a folder on another disk, or lower checkpoint: keep",
        folder=f"{disks}/tiny/run",
    )


def test_result_that_does_not_fit_is_told_before_the_first_step(
    trainer: Trainer, disks: Path
) -> None:
    trainer.refused(
        6,
        f"{disks}/tiny/out: needs 202 kB, but the disk of {disks}/tiny has ",
        "\n  fix: free space there, or name another disk",
        output={"path": f"{disks}/tiny/out"},
    )


def test_disk_that_fills_up_before_the_result_is_written_costs_no_step(
    trainer: Trainer, run: Path, disks: Path
) -> None:
    out = f"{disks}/small/out"
    write_run(run, trainer.model, trainer.tokens, steps=4, output={"path": out})
    process = trainer.command.start(run)
    metrics = run.with_suffix("") / "metrics.jsonl"
    process.send(
        signal.SIGSTOP, once=lambda: metrics.exists() and '"step": 0' in metrics.read_text()
    )
    ballast = seen_by(trainer.command, disks / "small" / "ballast")
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(b" " * (5 << 20))
    process.kill(signal.SIGCONT)
    done = process.wait()
    assert done.returncode == 7, done.stderr
    assert f"{out}: writing failed: No space left on device" in done.stderr
    assert "\n  fix: free space on that disk, or choose another as output: path:" in done.stderr
    ballast.unlink()
    assert not any(path.name.endswith("out") for path in ballast.parent.iterdir())
    assert steps_saved(run.with_suffix(""))[-1] == 4
    done = trainer.command.run(run)
    assert done.returncode == 0, done.stderr
    assert (ballast.parent / "out" / "config.json").exists()
    assert [event["step"] for event in events_of(run, "step")] == [1, 2, 3, 4]


def test_disk_that_cannot_be_written_is_told_at_once(trainer: Trainer, disks: Path) -> None:
    locked = f"{disks}/locked"
    not_writable = f"{locked}/out: cannot be made: {locked} is not writable"
    trainer.refused(6, not_writable, output={"path": f"{locked}/out"})
    read_only = f"{locked}/run: cannot be made: Read-only file system\n  fix: name another folder"
    trainer.refused(7, read_only, folder=f"{locked}/run")


def test_learning_rate_that_is_far_too_high_ends_the_run_with_what_to_do(
    trainer: Trainer, run: Path
) -> None:
    write_run(
        run,
        trainer.model,
        trainer.tokens,
        steps=50,
        optimizer={"learning_rate": 1e30, "clip": None},
        guard={"not_finite": 3, "spike_sigmas": None},
        evaluate={"every": 100},
        checkpoint={"every": 100},
    )
    done = trainer.command.run(run)
    assert done.returncode == 10
    said = "loss or gradient was not finite in 3 steps in a row\n  fix: a lower learning rate"
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    first, *others = [event["skipped"] for event in events_of(run, "step")]
    assert first is None
    assert set(others) == {"not finite"}


def test_what_was_saved_before_steps_that_are_not_finite_stays(trainer: Trainer) -> None:
    """One document has a token whose embedding is no number; the step that it comes in varies."""
    rows = 4096  # so many that no token of the checks before the first step is the bad one
    model = tiny_llama(trainer.folder / "model", vocab_size=rows, tie_word_embeddings=False)
    tensors = load_file(model / "model.safetensors")
    tensors["model.embed_tokens.weight"][rows - 1] = torch.nan
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    for bad in range(24):
        documents = [([number, *range(1, 64)], None) for number in range(24)]
        documents[bad][0][40] = rows - 1
        trainer.shards(documents, name=f"shards-{bad}", vocabulary=rows)
        run = write_run(
            trainer.folder / f"{bad}.yaml",
            model,
            (trainer.folder / f"shards-{bad}", trainer.tokens[1]),
            data={"packing": "documents", "held_out": None},
            steps=6,
            checkpoint={"every": 1},
            guard={"not_finite": 1},
        )
        done = trainer.command.run(run)
        assert done.returncode == 10, done.stderr
        assert "was not finite in 1 steps in a row" in done.stderr
        taken = len(events_of(run, "step"))
        if taken >= 2:
            break
    assert steps_saved(run.with_suffix("")) == [taken - 1, taken]
    again = trainer.command.run(run)
    assert again.returncode == 10
    assert f"going on from step {taken}" in again.stderr
    assert steps_saved(run.with_suffix("")) == [taken - 1, taken]


def damage(metrics: Path, how: str) -> None:
    lines = metrics.read_bytes().splitlines(keepends=True)
    if how == "torn":
        metrics.write_bytes(b"".join(lines)[:-10])
    elif how == "binary":
        metrics.write_bytes(b"".join([*lines[:2], b"\x00\xff{]\n", *lines[2:]]))
    else:
        metrics.unlink()


@pytest.mark.parametrize("how", ["torn", "binary", "gone"])
def test_damaged_metrics_are_no_reason_not_to_go_on(how: str, trainer: Trainer, run: Path) -> None:
    assert trainer.command.run(run).returncode == 0
    before = losses_of(run)
    damage(run.with_suffix("") / "metrics.jsonl", how)
    done = trainer.command.run(run)
    assert done.returncode == 0, done.stderr
    assert events_of(run, "run")[-1]["resumed_at"] == 4
    assert losses_of(run) == ([] if how == "gone" else before)
    assert (run.with_suffix("") / "report.html").exists()


def test_metrics_of_a_later_version_are_named_with_their_line(trainer: Trainer, run: Path) -> None:
    assert trainer.command.run(run).returncode == 0
    metrics = run.with_suffix("") / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join([lines[0], '{"event": "aura", "step": 1}\n', *lines[1:]]))
    done = trainer.command.run(run)
    assert done.returncode == 10
    assert (
        f"{metrics}:2: 'aura' is not an event that is known\n  fix: remove this line" in done.stderr
    )


def test_metrics_that_cannot_be_written_are_told_on_every_rank(trainer: Trainer, run: Path) -> None:
    (run.with_suffix("") / "metrics.jsonl").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    start = partial(trainer.command.start, run)
    ranks = [start(env=env | {"RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    for done in [rank.wait() for rank in ranks]:
        assert done.returncode == 7, done.stderr
        assert "metrics.jsonl: metrics cannot be written: Is a directory" in done.stderr
