"""Adapter folders made of bare tensors, and recipes that apply them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.cli.checkpoints import NUMPY_DTYPES, Tensors

PREFIX = "base_model.model."

RECIPE = """models: {base: ./base}
result: {lora: {model: base, adapter: ./adapter}}
output: {path: ./out}
"""


def adapter_config(**settings: Any) -> dict[str, Any]:
    """An adapter_config.json as PEFT writes it, with other settings."""
    return {
        "auto_mapping": None,
        "base_model_name_or_path": "org/base",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": 6,
        "lora_dropout": 0.05,
        "megatron_core": "megatron.core",
        "modules_to_save": None,
        "peft_type": "LORA",
        "qalora_group_size": 16,
        "r": 4,
        "target_modules": ["q_proj"],
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
        "runtime_config": {},
        **settings,
    }


def factors(
    module: str,
    shape: tuple[int, int],
    *,
    rank: int = 4,
    dtype: str = "F32",
    seed: int = 0,
    magnitude: bool = False,
    embedding: bool = False,
) -> Tensors:
    """Random tensors by which an adapter changes a module of (out, in) features."""
    random = np.random.default_rng(seed)
    out, into = shape
    names = ("lora_embedding_A", "lora_embedding_B") if embedding else _FACTORS
    values = {names[0]: random.normal(size=(rank, into)), names[1]: random.normal(size=(out, rank))}
    if magnitude:
        values["lora_magnitude_vector"] = 1 + random.random(out)
    return {
        f"{PREFIX}{module}.{name}": value.astype(NUMPY_DTYPES[dtype])
        for name, value in values.items()
    }


_FACTORS = ("lora_A.weight", "lora_B.weight")


def write_adapter(folder: Path, tensors: Tensors, config: Mapping[str, Any] | None = None) -> Path:
    """Writes what PEFT's save_pretrained does."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    written = adapter_config() if config is None else dict(config)
    (folder / "adapter_config.json").write_text(json.dumps(written))
    return folder
