"""Which training a checkpoint is of: what may differ when it goes on, and what may not."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tensorsurgeon.trainer.report.history import History
from tests.cli.checkpoints import file_bytes
from tests.trainer.runs import events_of, losses_of, tiny_llama, write_run
from tests.trainer.warm import Warm, warm

Tokens = tuple[Path, Path]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    with warm(tmp_path_factory.mktemp("told")) as made:
        yield made


@pytest.fixture(scope="module")
def short(
    command: Warm,
    random_llama: Path,
    tokens: Tokens,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with a model, token shards and a short training of them."""
    folder = tmp_path_factory.mktemp("short")
    shutil.copytree(random_llama, folder / "model")
    shutil.copytree(tokens[0], folder / "tokens")
    shutil.copytree(tokens[1], folder / "held-out")
    run = write_short(folder / "run.yaml")
    done = command.run(run)
    assert done.returncode == 0, done.stderr
    return run


def write_short(path: Path, model: str = "./model", **changes: Any) -> Path:
    settings: dict[str, Any] = {"folder": "./run", "steps": 2}
    tokens = Path("./tokens"), Path("./held-out")
    return write_run(path, Path(model), tokens, **(settings | changes))


@pytest.fixture
def copied(short: Path, tmp_path: Path) -> Path:
    shutil.copytree(short.parent, tmp_path / "short")
    return tmp_path / "short" / "run.yaml"


def test_every_setting_that_differs_is_named_with_both_values(copied: Path, command: Warm) -> None:
    write_short(
        copied,
        steps=3,
        seed=7,
        batch={"sequences": 8},
        optimizer={"learning_rate": 1e-3, "betas": [0.9, 0.99]},
        schedule={"warm_up": 1},
        groups=[{"match": "@norms", "weight_decay": 0.5}],
        data={"sequence_length": 32},
        guard={"spike_sigmas": None},
    )
    before = file_bytes(copied.parent / "run" / "checkpoints" / "step-00000002")
    done = command.run(copied)
    assert done.returncode == 10
    for told in (
        "batch.sequences: was 4 when this run began, and is now 8",
        "data.sequence_length: was 64 when this run began, and is now 32",
        "guard.spike_sigmas: was 8.0 when this run began, and is now null",
        "groups: was [] when this run began, and is now [{",
        "optimizer.betas.1: was 0.95 when this run began, and is now 0.99",
        "optimizer.learning_rate: was 0.003 when this run began, and is now 0.001",
        "schedule.warm_up: was 0 when this run began, and is now 1",
        "seed: was 0 when this run began, and is now 7",
        "steps: was 2 when this run began, and is now 3",
        "--no-resume' begins anew",
    ):
        assert told in done.stderr
    assert done.stderr.count("when this run began") == 9
    assert "\n  fix: put it back as it was, or give the new run another folder\n" in done.stderr
    assert file_bytes(copied.parent / "run" / "checkpoints" / "step-00000002") == before
    assert len(events_of(copied, "step")) == 2


def test_settings_that_change_no_step_may_differ(copied: Path, command: Warm) -> None:
    for name in ("model", "held-out"):
        (copied.parent / name).rename(copied.parent / f"other-{name}")
    write_short(
        copied,
        model="./other-model",
        data={"held_out": "./other-held-out"},
        batch={"micro": 1},
        evaluate={"every": 1, "sequences": 3},
        checkpoint={"every": 1, "keep": 7},
        log={"every": 2, "layers": 1},
        engine={"activation_checkpointing": "full", "threads": 2},
        guard={"not_finite": 3},
        output={"path": "./out", "dtype": "bfloat16"},
    )
    done = command.run(copied)
    assert done.returncode == 0, done.stderr
    assert [event["resumed_at"] for event in events_of(copied, "run")] == [None, 2]
    assert (copied.parent / "out" / "config.json").exists()


def test_held_out_losses_on_other_data_are_no_part_of_the_curve(
    copied: Path, command: Warm, random_llama: Path, tmp_path: Path
) -> None:
    baseline = str(tiny_llama(tmp_path / "other", seed=3))
    settings: dict[str, Any] = {"steps": 4, "checkpoint": {"every": 2}, "folder": "./run-2"}
    few = {"every": 2, "sequences": 2, "baseline": str(random_llama)}
    run = write_short(copied.with_name("run-2.yaml"), evaluate=few, **settings)
    assert command.run(run).returncode == 0
    shutil.rmtree(copied.parent / "run-2" / "checkpoints" / "step-00000004")
    for sequences, name, asked in ((4, "llama", 2), (4, "other", 3), (4, "other", 3)):
        path = {"llama": str(random_llama), "other": baseline}[name]
        write_short(run, evaluate={**few, "sequences": sequences, "baseline": path}, **settings)
        done = command.run(run)
        assert done.returncode == 0, done.stderr
        assert ("what is held out is not what it was" in done.stderr) == (asked == 2)
        assert len(events_of(run, "baseline")) == asked
        history = History.read(copied.parent / "run-2" / "metrics.jsonl")
        assert history.base is not None
        assert history.base.name == name
        assert [event.step for event in history.evaluations] == [4]
        assert history.left_out == 2
        assert history.base.tokens == history.evaluations[0].tokens


def test_losses_that_were_all_measured_stay_where_nothing_is_left_to_learn(
    copied: Path, command: Warm, random_llama: Path
) -> None:
    before = History.read(copied.parent / "run" / "metrics.jsonl")
    write_short(copied, evaluate={"sequences": 3, "baseline": str(random_llama)})
    done = command.run(copied)
    assert done.returncode == 0, done.stderr
    after = History.read(copied.parent / "run" / "metrics.jsonl")
    assert after.evaluations == before.evaluations
    assert after.base is None


def test_metrics_of_another_run_are_not_replaced_where_its_checkpoints_are_gone(
    copied: Path, command: Warm
) -> None:
    metrics = copied.parent / "run" / "metrics.jsonl"
    shutil.rmtree(metrics.parent / "checkpoints")
    before = metrics.read_bytes()
    write_short(copied, optimizer={"learning_rate": 1e-3})
    done = command.run(copied)
    assert done.returncode == 10
    assert f"{metrics.parent}: has the metrics of a run with other settings" in done.stderr
    assert "\n  fix: give the new run another folder, or begin anew here with --no-resume" in (
        done.stderr
    )
    assert metrics.read_bytes() == before
    done = command.run(copied, "--no-resume")
    assert done.returncode == 0, done.stderr
    assert next(event["learning_rate"] for event in events_of(copied, "step")) == 1e-3


def test_run_that_was_killed_before_its_first_checkpoint_begins_anew_by_the_same_command(
    copied: Path, command: Warm
) -> None:
    before = losses_of(copied)
    shutil.rmtree(copied.parent / "run" / "checkpoints")
    write_short(copied, batch={"micro": 1}, log={"layers": 1})
    done = command.run(copied)
    assert done.returncode == 0, done.stderr
    assert "no checkpoint was saved before: beginning anew" in done.stderr
    assert losses_of(copied) == pytest.approx(before, abs=1e-5)


def test_other_data_under_the_same_path_are_noticed(copied: Path, command: Warm) -> None:
    shutil.rmtree(copied.parent / "tokens")
    shutil.copytree(copied.parent / "held-out", copied.parent / "tokens")
    done = command.run(copied)
    assert done.returncode == 10
    assert "data.train.0: is another than when this run began\n  fix: " in done.stderr


def test_another_model_under_the_same_path_is_noticed(copied: Path, command: Warm) -> None:
    path = copied.parent / "model" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    done = command.run(copied)
    assert done.returncode == 10
    assert "model: is another than when this run began\n  fix: " in done.stderr


def test_settings_that_an_earlier_version_did_not_know_count_as_their_defaults(
    copied: Path, command: Warm
) -> None:
    path = copied.parent / "run" / "checkpoints" / "step-00000002" / "meta.json"
    meta = json.loads(path.read_text())
    settings = meta["meta"]["run"]["settings"]
    del settings["guard"]
    del settings["optimizer"]["epsilon"]
    path.write_text(json.dumps(meta))
    done = command.run(copied)
    assert done.returncode == 0, done.stderr
    write_short(copied, optimizer={"epsilon": 1e-6})
    done = command.run(copied)
    assert done.returncode == 10
    assert "optimizer.epsilon: was 1e-08 when this run began, and is now 1e-06" in done.stderr
