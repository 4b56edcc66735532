"""Tiny models, grown by the command itself, and what a training of one might be."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor
from torch._C._distributed_c10d import HashStore

from tensorsurgeon.checkpoint import (
    MANIFEST_NAME,
    Checkpoint,
    encode_manifest,
    open_checkpoint,
    read_manifest,
)
from tensorsurgeon.trainer.export import Export, Training, Values, plan_export
from tests.cli.checkpoints import file_bytes

ROOT = Path(__file__).parents[3]

RUN_FILE = """\
# what is trained
model: /home/somebody/models/grown
folder: ./runs/one
data: {train: ~/tokens, sequence_length: 32}
steps: 7
batch: {sequences: 4}
optimizer: {learning_rate: 1e-3}
output: {path: ../out}
"""

TRAINING = Training(run_file=RUN_FILE, stage="pretrain", steps=7, tokens=896, seed=3)

DEPTH = 6
"""Layers of the grown model."""


def make_base(folder: Path, *, tied: bool, dtype: torch.dtype = torch.bfloat16) -> Path:
    """A random Llama of 4 layers as transformers saves it, in two shards, with a tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        dtype=dtype,
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder, max_shard_size="30kB")
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["x.Y"]}}')
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Base\n")
    return folder


def make_grown(folder: Path, *, tied: bool = True, max_shard_size: str = "60kB") -> Path:
    """The base with two of its layers twice, made by `tensorsurgeon apply`."""
    make_base(folder / "base", tied=tied)
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        "models: {base: ./base}\n"
        "result: {depth_up_scale: {model: base, remove: 1}}\n"
        f"output: {{path: ./grown, max_shard_size: {max_shard_size}}}\n"
    )
    command("apply", recipe, "-q")
    return folder / "grown"


def command(*arguments: object, code: int = 0) -> str:
    """What `tensorsurgeon ARGUMENTS` prints, both streams."""
    done = subprocess.run(
        [sys.executable, "-m", "tensorsurgeon", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def export_of(folder: Path, training: Training = TRAINING, **options: Any) -> Export:
    return plan_export(open_checkpoint(folder), training, **{"depth": DEPTH, **options})


def same(checkpoint: Checkpoint) -> Values:
    """Values of a training that changed nothing: those of the checkpoint, in float32."""
    return values_of(tensors_of(checkpoint.path))


def values_of(tensors: dict[str, Tensor]) -> Callable[[str], Tensor]:
    return lambda name: tensors[name].float()


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder, read by the safetensors library."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a result; of its manifest all that does not tell when it was made."""
    files = file_bytes(folder)
    manifest = read_manifest(folder / MANIFEST_NAME)
    created = {**manifest.created, "at": "", "run": ""}
    files[MANIFEST_NAME] = encode_manifest(replace(manifest, created=created))
    return files


@contextmanager
def alone() -> Iterator[None]:
    """A process group of this process."""
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()
