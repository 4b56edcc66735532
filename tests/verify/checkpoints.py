"""Tiny checkpoints with a manifest, as a run leaves them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tensorsurgeon.checkpoint import (
    MANIFEST_NAME,
    Manifest,
    encode_manifest,
    header_bytes,
    read_manifest,
)
from tensorsurgeon.checkpoint.header import read_header
from tests.cli.checkpoints import Tensors, llama_config, write_checkpoint

HIDDEN = 2
VOCAB = 3

SHAPES: Mapping[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (VOCAB, HIDDEN),
    "model.layers.0.up.weight": (4, HIDDEN),
    "model.layers.1.up.weight": (4, HIDDEN),
    "model.norm.weight": (HIDDEN,),
    "lm_head.weight": (VOCAB, HIDDEN),
}

LAYER_MAP = (
    {"sources": [["base", 0]], "new": False, "seam": False},
    {"sources": [["base", 0]], "new": False, "seam": True},
)


@dataclass(frozen=True, kw_only=True)
class Origins:
    """What a manifest says of where its tensors came from.

    Attributes:
        of: the origin of some tensors; all others are copies.
        layer_map: an entry for each layer.
        sources: the recipe's sources.
    """

    of: Mapping[str, Any]
    layer_map: Sequence[Mapping[str, Any]]
    sources: Mapping[str, Any]


COPIES = Origins(
    of={},
    layer_map=LAYER_MAP,
    sources={"base": {"folder": "base", "config": "0" * 64, "manifest": None, "files": {}}},
)


def tiny_tensors(shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> Tensors:
    """Random tensors in bfloat16."""
    random = np.random.default_rng(0)
    return {n: random.standard_normal(s).astype(ml_dtypes.bfloat16) for n, s in shapes.items()}


def tiny_checkpoint(folder: Path, *, shards: int = 1, tensors: Tensors | None = None) -> Path:
    """Makes a model of a few hundred bytes, a tokenizer file beside it, and its manifest."""
    config = llama_config(2, hidden=HIDDEN, vocab=VOCAB)
    write_checkpoint(folder, tiny_tensors() if tensors is None else tensors, config, shards=shards)
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    return with_manifest(folder)


def with_manifest(folder: Path, origins: Origins = COPIES) -> Path:
    """Gives a folder the manifest of what lies there now."""
    shards = sorted(folder.glob("*.safetensors"))
    others = sorted(set(folder.iterdir()) - {*shards, folder / MANIFEST_NAME})
    manifest = Manifest(
        tensorsurgeon="0.1.0",
        recipe={"sha256": "0" * 64, "text": "result: base\n"},
        seed=0,
        sources=origins.sources,
        layer_map=tuple(origins.layer_map),
        files={path.name: file_entry(path) for path in others if path.is_file()},
        shards={path.name: shard_entry(path) for path in shards},
        tensors={n: e for path in shards for n, e in tensor_entries(path, origins.of).items()},
        created={"at": "2026-01-01T00:00:00Z", "binding": "b", "run": "r"},
    )
    (folder / MANIFEST_NAME).write_bytes(encode_manifest(manifest))
    return folder


def change_manifest(folder: Path, **values: Any) -> None:
    """Writes a manifest with other values and a digest of its own that is right."""
    manifest = replace(read_manifest(folder / MANIFEST_NAME), **values)
    (folder / MANIFEST_NAME).write_bytes(encode_manifest(manifest))


def change_config(folder: Path, *without: str, **values: Any) -> None:
    """Writes other settings to config.json."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: v for key, v in config.items() if key not in without}))


def file_entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": digest(path.read_bytes())}


def shard_entry(path: Path) -> dict[str, Any]:
    header = header_bytes(path)
    size = path.stat().st_size
    return {"bytes": size, "header_bytes": len(header), "header": digest(header)}


def tensor_entries(path: Path, origins: Mapping[str, Any]) -> dict[str, Any]:
    data = path.read_bytes()
    return {
        name: {
            "dtype": tensor.spec.dtype.value,
            "shape": list(tensor.spec.shape),
            "shard": path.name,
            "offset": tensor.offset,
            "sha256": digest(data[tensor.offset : tensor.offset + tensor.spec.nbytes]),
            "origin": origins.get(name, {"source": "base", "tensor": name}),
        }
        for name, tensor in read_header(path).items()
    }


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
