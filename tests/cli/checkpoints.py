"""Tiny checkpoints in the shape of Llama's, written and read back with the safetensors library."""

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tensorsurgeon.specs import SPAN

Tensors = dict[str, NDArray[Any]]

HIDDEN = 8
VOCAB = 16

NUMPY_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
"""The dtypes that the tests compute with, by their names in the format."""

TORCH_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
"""What configs and recipes call those that can be averaged."""

LARGEST = {
    "F64": float(np.finfo(np.float64).max),
    "F32": float(np.finfo(np.float32).max),
    "F16": 65504.0,
    "BF16": float.fromhex("0x1.fep127"),
    "F8_E4M3": 448.0,
    "F8_E5M2": 57344.0,
}
"""The largest number each of these holds."""


def llama_tensors(
    depth: int = 2,
    *,
    hidden: int = HIDDEN,
    vocab: int = VOCAB,
    dtype: str = "BF16",
    seed: int = 0,
) -> Tensors:
    """Random normal weights under the names transformers gives a Llama model's."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(depth):
        before = f"model.layers.{layer}"
        shapes |= {
            f"{before}.input_layernorm.weight": (hidden,),
            f"{before}.mlp.down_proj.weight": (hidden, 2 * hidden),
            f"{before}.mlp.gate_proj.weight": (2 * hidden, hidden),
            f"{before}.mlp.up_proj.weight": (2 * hidden, hidden),
            f"{before}.post_attention_layernorm.weight": (hidden,),
            f"{before}.self_attn.k_proj.weight": (hidden, hidden),
            f"{before}.self_attn.o_proj.weight": (hidden, hidden),
            f"{before}.self_attn.q_proj.weight": (hidden, hidden),
            f"{before}.self_attn.v_proj.weight": (hidden, hidden),
        }
    shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}
    random = np.random.default_rng(seed)
    return {
        name: random.standard_normal(shape).astype(NUMPY_DTYPES[dtype])
        for name, shape in shapes.items()
    }


def llama_config(
    depth: int = 2, *, hidden: int = HIDDEN, vocab: int = VOCAB, dtype: str = "BF16"
) -> dict[str, Any]:
    """A config.json that goes with `llama_tensors`."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "dtype": TORCH_NAMES.get(dtype, "float32"),
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "model_type": "llama",
        "num_attention_heads": 2,
        "num_hidden_layers": depth,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
        "vocab_size": vocab,
    }


def tiny_llama(
    folder: Path,
    depth: int = 2,
    *,
    hidden: int = HIDDEN,
    vocab: int = VOCAB,
    dtype: str = "BF16",
    seed: int = 0,
    shards: int = 1,
) -> Path:
    """Makes a folder with a random Llama of a few layers, and returns it."""
    tensors = llama_tensors(depth, hidden=hidden, vocab=vocab, dtype=dtype, seed=seed)
    config = llama_config(depth, hidden=hidden, vocab=vocab, dtype=dtype)
    return write_checkpoint(folder, tensors, config, shards=shards)


def write_checkpoint(
    folder: Path, tensors: Tensors, config: Mapping[str, Any] | None = None, *, shards: int = 1
) -> Path:
    """Writes tensors and config as transformers does: one file, or shards and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(llama_config() if config is None else config))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    names = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
    groups: dict[str, Tensors] = {name: {} for name in names}
    for index, (name, tensor) in enumerate(tensors.items()):
        groups[names[index * shards // len(tensors)]][name] = tensor
    for name, group in groups.items():
        save_file(group, folder / name, metadata={"format": "pt"})
    write_index(
        folder,
        {tensor: name for name, group in groups.items() for tensor in group},
        total_size=sum(tensor.nbytes for tensor in tensors.values()),
    )
    return folder


def odd_tensors(*, dtype: str = "BF16", seed: int = 0) -> Tensors:
    """One layer of random normal tensors whose sizes lie around those of the engine's spans."""
    shapes: dict[str, tuple[int, ...]] = {
        "below_a_span": (SPAN - 1,),
        "a_span": (512, 512),
        "above_a_span": (SPAN + 1,),
        "spans": (3 * SPAN + 77,),
        "few": (3, 5),
        "one": (1,),
        "scalar": (),
        "empty": (0, 7),
    }
    random = np.random.default_rng(seed)
    return {
        f"model.layers.0.{name}": random.standard_normal(shape).astype(NUMPY_DTYPES[dtype])
        for name, shape in shapes.items()
    }


def sparse_llama(folder: Path, elements: int, depth: int = 2) -> Path:
    """Makes a model with one BF16 tensor of so many zeros in each layer, in a file of holes."""
    write_checkpoint(folder, {}, llama_config(depth))
    size = 2 * elements
    header = shard_bytes(
        {
            f"model.layers.{layer}.mlp.up_proj.weight": entry(
                "BF16", [elements], layer * size, (layer + 1) * size
            )
            for layer in range(depth)
        }
    )
    (folder / "model.safetensors").write_bytes(header)
    os.truncate(folder / "model.safetensors", len(header) + depth * size)
    return folder


def write_index(folder: Path, weight_map: Mapping[str, object], *, total_size: object = 0) -> None:
    """Writes model.safetensors.index.json."""
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(weight_map)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def read_index(folder: Path) -> dict[str, str]:
    """The weight map of a sharded checkpoint."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    return dict(index["weight_map"])


def read_config(folder: Path) -> dict[str, Any]:
    """A checkpoint's config.json."""
    return dict(json.loads((folder / "config.json").read_text()))


def read_tensors(folder: Path) -> Tensors:
    """Every tensor of every shard in a folder, as the safetensors library reads them."""
    tensors: Tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, stored in safetensors.deserialize(path.read_bytes()):  # type: ignore[no-untyped-call]
            assert name not in tensors, f"{name} is in two shards"
            values = np.frombuffer(stored["data"], NUMPY_DTYPES[stored["dtype"]])
            tensors[name] = values.reshape(stored["shape"])
    return tensors


def file_bytes(folder: Path) -> dict[str, bytes]:
    """The content of every file in a folder, by its name; of a manifest, what never changes."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    if manifest := found.get("tensorsurgeon.json"):
        found["tensorsurgeon.json"] = manifest[: manifest.rindex(b'"created": ')]
    return found


CARD = ("README.md", "layer_map.svg", "recipe.yaml")
"""What tells people of a result; tests/card looks at it."""


def shard_bytes(header: Mapping[str, Any] | bytes, data: bytes = b"") -> bytes:
    """A safetensors file laid by hand: the length, the header unpadded, the data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    """One tensor's entry in a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
