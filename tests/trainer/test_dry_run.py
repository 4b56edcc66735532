"""What `--dry-run` tells, against formulae and what it must not take."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from tensorsurgeon.trainer.parallel import choose_precision
from tests.cli.checkpoints import entry, shard_bytes
from tests.conftest import ROOT
from tests.trainer.data.tokens import make_tokenizer
from tests.trainer.runs import LENGTH, environment, write_run
from tests.trainer.warm import Warm

Tokens = tuple[Path, Path]

EMBEDDINGS, LAYER, NORM = 384 * 32, 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32, 32
ELEMENTS = EMBEDDINGS + 4 * LAYER + NORM
"""Of the random Llama: queries and output, keys and values, MLP, two norms."""


class DryRun:
    """Runs `--dry-run --json` on a run file of its own."""

    def __init__(self, command: Warm, model: Path, tokens: Tokens, folder: Path) -> None:
        self.command, self.model, self.tokens, self.folder = command, model, tokens, folder

    def __call__(self, *options: str, model: Path | None = None, **changes: Any) -> dict[str, Any]:
        run = write_run(self.folder / "run.yaml", model or self.model, self.tokens, **changes)
        done = self.command.run(run, "--dry-run", "--json", *options)
        assert done.returncode == 0, done.stderr
        assert not (self.folder / "run").exists()
        found: dict[str, Any] = json.loads(done.stdout)
        assert found["peak"] == sum(found["memory"].values())
        return found


@pytest.fixture
def dry_run(command: Warm, random_llama: Path, tokens: Tokens, tmp_path: Path) -> DryRun:
    return DryRun(command, random_llama, tokens, tmp_path)


def test_parameters_by_group_are_all_of_them(dry_run: DryRun) -> None:
    groups = [
        {"match": "@norms", "weight_decay": 0.0, "learning_rate": 0.5},
        {"match": "layers 1-2", "frozen": True},
        {"match": "@embeddings", "weight_decay": 0.25},
    ]
    found = dry_run(groups=groups)
    told = {group["match"]: group for group in found["groups"]}
    assert {match: group["elements"] for match, group in told.items()} == {
        "@norms": 9 * 32,
        "layers 1-2": 2 * (LAYER - 64),
        "@embeddings": EMBEDDINGS,
        "(all others)": 2 * (LAYER - 64),
    }
    assert found["parameters"] == ELEMENTS
    assert found["trained"] == ELEMENTS - 2 * (LAYER - 64)
    assert sum(group["tensors"] for group in found["groups"]) == 1 + 4 * 9 + 1
    assert (told["@norms"]["learning_rate"], told["@embeddings"]["weight_decay"]) == (0.5, 0.25)
    assert [match for match, group in told.items() if group["frozen"]] == ["layers 1-2"]


def test_weights_gradients_and_moments_are_as_many_bytes_as_they_must_be(dry_run: DryRun) -> None:
    memory = dry_run()["memory"]
    assert memory["master weights"] == 4 * ELEMENTS
    assert memory["gradients"] == 4 * ELEMENTS
    assert memory["optimizer"] == 8 * ELEMENTS
    assert memory["gathered weights"] == 4 * (EMBEDDINGS + NORM + 2 * LAYER)


def test_what_is_frozen_has_neither_gradients_nor_moments(dry_run: DryRun) -> None:
    plain = dry_run()
    groups = [{"match": "layers 2-3"}, {"match": "*", "frozen": True}]
    found = dry_run(groups=groups)
    assert found["memory"]["master weights"] == 4 * ELEMENTS
    assert found["memory"]["gradients"] == 4 * 2 * LAYER
    assert found["memory"]["optimizer"] == 8 * 2 * LAYER
    assert found["frozen_prefix"] == 2
    # Outside the layers there are, for the embeddings and the loss, three hidden states.
    outside = 3 * 2 * LENGTH * 32 * 4
    kept, of_it = plain["memory"]["activations"], found["memory"]["activations"]
    # The first layer with gradients need not keep what its input's would be made of.
    assert 0.9 < (of_it - outside) / ((kept - outside) / 2) <= 1


@pytest.mark.parametrize(("ranks", "replicate", "shards"), [(2, 1, 2), (4, 2, 2), (3, 3, 1)])
def test_ranks_share_what_is_sharded_and_nothing_else(
    ranks: int, replicate: int, shards: int, dry_run: DryRun
) -> None:
    batch = {"sequences": 12, "micro": 1}
    one = dry_run(batch=batch)["memory"]
    found = dry_run("--ranks", str(ranks), batch=batch, engine={"replicate": replicate})
    assert found["ranks"] == ranks
    for part in ("master weights", "gradients", "optimizer"):
        assert found["memory"][part] == one[part] // shards
    for part in ("gathered weights", "activations", "loss"):
        assert found["memory"][part] == one[part]


def test_recomputation_keeps_less_the_more_is_computed_again(dry_run: DryRun) -> None:
    none, selective, full = (
        dry_run(engine={"activation_checkpointing": kind})["memory"]["activations"]
        for kind in ("none", "selective", "full")
    )
    assert none > selective > full > 0


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_compiled_layers_are_told_to_keep_less(device: str, dry_run: DryRun) -> None:
    off, auto, on = (
        dry_run(engine={"device": device, "compile": kind})["memory"]["activations"]
        for kind in ("off", "auto", "on")
    )
    assert on < 0.8 * off
    assert auto == (on if device == "cuda" else off)


def test_activations_grow_with_the_tokens_of_a_micro_batch(dry_run: DryRun) -> None:
    one = dry_run(batch={"micro": 1})["memory"]["activations"]
    two = dry_run(batch={"micro": 2})["memory"]["activations"]
    half = dry_run(batch={"micro": 2}, data={"sequence_length": LENGTH // 2})
    assert two == pytest.approx(2 * one, rel=0.01)
    assert half["memory"]["activations"] == one


def test_data_are_told_as_often_as_they_are_seen(dry_run: DryRun) -> None:
    (found,) = dry_run(steps=50)["data"]
    assert found["epochs"] == pytest.approx(50 * 4 / found["samples"])
    assert found["name"] == str(dry_run.tokens[0])


def test_text_says_the_same_as_json(dry_run: DryRun) -> None:
    found = dry_run(groups=[{"match": "layer 0", "frozen": True}, {"match": "@embeddings"}])
    done = dry_run.command.run(dry_run.folder / "run.yaml", "--dry-run")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["@embeddings", f"{EMBEDDINGS:,}", "1", "tensors"] in [line[:4] for line in lines]
    assert ["all", f"{ELEMENTS:,}", "of", "them", "trained", f"{found['trained']:,}"] in lines
    assert {line[0] for line in lines if line} >= {"master", "gradients", "optimizer", "peak"}
    assert f"8 steps, {8 * 4 * LENGTH:,} tokens, {found['flops']:.3g} FLOPs" in done.stdout


def test_forecast_for_a_gpu_needs_none(dry_run: DryRun) -> None:
    here, there = dry_run(), dry_run(engine={"device": "cuda"})
    assert (here["device"], here["precision"]) == ("cpu", "float32")
    assert (there["device"], there["precision"]) == ("cuda", "bfloat16")
    assert there["memory"]["master weights"] == here["memory"]["master weights"]
    assert there["memory"]["gathered weights"] == here["memory"]["gathered weights"] // 2
    assert there["memory"]["activations"] < here["memory"]["activations"]


def test_bfloat16_that_a_gpu_only_emulates_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    for native in (False, True):

        def supported(including_emulation: bool = True, native: bool = native) -> bool:
            return native or including_emulation

        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
        assert choose_precision("auto", gpu) == (torch.bfloat16 if native else torch.float32)


def test_dry_run_finds_what_would_keep_the_training_from_beginning(
    dry_run: DryRun, tmp_path: Path
) -> None:
    run = write_run(
        tmp_path / "run.yaml",
        dry_run.model,
        dry_run.tokens,
        evaluate={"baseline": "./none"},
    )
    done = dry_run.command.run(run, "--dry-run")
    assert done.returncode == 5
    assert f"{tmp_path}/none: there is no such folder" in done.stderr
    done = dry_run.command.run(run, "--dry-run", "--ranks", "3")
    assert done.returncode == 3
    assert "on 3 ranks\n  fix: make 'sequences' a multiple of 6" in done.stderr


def test_dry_run_refuses_an_output_that_the_training_would_refuse(
    dry_run: DryRun, tmp_path: Path
) -> None:
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "config.json").write_text("{}")
    output = {"path": "./trained"}
    run = write_run(tmp_path / "run.yaml", dry_run.model, dry_run.tokens, output=output)
    dry, wet = dry_run.command.run(run, "--dry-run"), dry_run.command.run(run)
    assert dry.returncode == wet.returncode != 0
    assert dry.stderr == wet.stderr
    assert str(tmp_path / "trained") in dry.stderr


def test_dry_run_of_a_finished_training_does_not_mind_its_result(
    dry_run: DryRun, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"steps": 1, "output": {"path": "./trained"}}
    run = write_run(tmp_path / "run.yaml", dry_run.model, dry_run.tokens, **settings)
    for options in ((), ("--dry-run",)):
        done = dry_run.command.run(run, *options)
        assert done.returncode == 0, done.stderr


SHAPE = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
"""Of TinyLlama."""

BILLION = 1_100_048_384


def make_of_holes(folder: Path) -> Path:
    """A Llama of 1.1 billion parameters whose weights are a file of holes, with a tokenizer."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**SHAPE))
    at, header = 0, {}
    for name, tensor in model.state_dict().items():
        header[name] = entry("BF16", list(tensor.shape), at, at + 2 * tensor.numel())
        at += 2 * tensor.numel()
    make_tokenizer(folder)
    start = shard_bytes(header)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(start)
        file.truncate(len(start) + at)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **SHAPE}
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    return folder


def test_model_of_a_billion_parameters_takes_neither_its_memory_nor_time(
    tokens: Tokens, tmp_path: Path
) -> None:
    model = make_of_holes(tmp_path / "model")
    run = write_run(
        tmp_path / "run.yaml",
        model,
        tokens,
        data={"sequence_length": 2048},
        engine={"device": "cuda"},  # where a layer is compiled, too
        checkpoint={"keep": 1},  # for which the disk of whoever tests has room
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = [sys.executable, "-I", "-S", str(ROOT / "tests" / "real" / "peak.py")]
    done = subprocess.run(
        [*peak, sys.executable, "-m", "tensorsurgeon", "train", str(run), "--dry-run", "--json"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    told, _, resident = done.stdout.rstrip().rpartition("\n")
    found = json.loads(told)
    assert found["parameters"] == BILLION
    assert found["memory"]["optimizer"] == 8 * BILLION
    assert int(resident) < 1.5e9
    # Of processors, since others may be at work on them.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 30
