"""Tiny trainings: a model of bytes, token shards of a text, and run files."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML
from transformers import LlamaConfig, LlamaForCausalLM

from tensorsurgeon import api
from tensorsurgeon.trainer.metrics import read_metrics
from tensorsurgeon.trainer.run_file import read_run
from tensorsurgeon.trainer.train import Outcome, train
from tests.trainer.data.tokens import make_tokenizer

REPOSITORY = Path(__file__).parents[2]
LENGTH = 64


def tiny_llama(folder: Path, *, layers: int = 4, seed: int = 0, **settings: Any) -> Path:
    """A random Llama over bytes, with its tokenizer."""
    torch.manual_seed(seed)
    shape = {
        "vocab_size": 384,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.1,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    model = LlamaForCausalLM(LlamaConfig(**(shape | settings)))
    make_tokenizer(folder)
    model.save_pretrained(folder)
    return folder


def prepare_tokens(folder: Path, model: Path) -> tuple[Path, Path]:
    """Token shards of texts of this repository, and of some that are held out."""
    texts = [REPOSITORY / "recipes" / "demo.txt", REPOSITORY / "LICENSE"]
    told = trained_by_command(
        "prepare",
        *map(str, texts),
        "--split=blank-lines",
        f"--tokenizer={model}",
        f"--output={folder / 'tokens'}",
        "--held-out=0.2",
        f"--held-out-output={folder / 'held-out'}",
    )
    assert told.returncode == 0, told.stderr
    return folder / "tokens", folder / "held-out"


def trained_by_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`tensorsurgeon train …` in a process of its own, to its end."""
    command = [sys.executable, "-m", "tensorsurgeon", "train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)


def environment() -> dict[str, str]:
    """One thread, and no network."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def write_run(path: Path, model: Path, tokens: tuple[Path, Path], **changes: Any) -> Path:
    """A run file beside which everything goes; `changes` replace or add settings, also nested."""
    settings: dict[str, Any] = {
        "model": str(model),
        "folder": str(path.with_suffix("")),
        "data": {
            "train": str(tokens[0]),
            "held_out": str(tokens[1]),
            "sequence_length": LENGTH,
        },
        "steps": 8,
        "batch": {"sequences": 4, "micro": 2},
        "optimizer": {"learning_rate": 3e-3},
        "evaluate": {"every": 4, "sequences": 8},
        "checkpoint": {"every": 4},
        "log": {"layers": 4},
        "engine": {"device": "cpu", "threads": 1},
    }
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and key in settings
        settings[key] = {**settings[key], **value} if nested else value
    path.parent.mkdir(parents=True, exist_ok=True)
    yaml = YAML()
    yaml.width = 10_000  # a long path stays on its line
    with path.open("w") as file:
        yaml.dump({key: value for key, value in settings.items() if value is not None}, file)
    return path


def train_quietly(path: Path, **arguments: Any) -> Outcome:
    """A training in this process."""
    return train(read_run(path), quiet=True, **arguments)


def events_of(run: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind that a run file's training wrote."""
    metrics = read_metrics(run.with_suffix("") / "metrics.jsonl")
    return [event for event in metrics if event["event"] == kind]


def losses_of(run: Path) -> list[float]:
    """The loss of each step."""
    return [event["loss"] for event in events_of(run, "step")]


def apply_surgery(folder: Path, base: Path, expression: Mapping[str, Any]) -> Path:
    """What a recipe of one operator makes of a base model."""
    recipe = folder / "recipe.yaml"
    models = {"base": str(base), "grown": expression}
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(json.dumps({"models": models, "result": "grown"}))
    api.apply(api.plan(recipe, output=folder / "grown"))
    return folder / "grown"
