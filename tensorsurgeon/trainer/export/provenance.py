"""The manifest of a trained checkpoint, which continues the surgery's."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tensorsurgeon.checkpoint import (
    MANIFEST_NAME,
    Checkpoint,
    Manifest,
    encode_manifest,
    header_bytes,
    read_manifest,
)
from tensorsurgeon.errors import CheckpointError, ManifestError, printable

_NAME = "model"
"""What a trained checkpoint is called among the sources, with a number where that is taken."""


def read_surgery(checkpoint: Checkpoint) -> Manifest | None:
    """The manifest of what is trained; None without one.

    Raises:
        ManifestError: it is damaged, or was made for other weights.
        CheckpointError: the weights' headers cannot be read.
    """
    path = checkpoint.path / MANIFEST_NAME
    if not path.exists() and not path.is_symlink():
        return None
    manifest = read_manifest(path)
    headers = _headers(checkpoint)
    said = {name: manifest.shards.get(name, {}).get("header") for name in headers}
    if said != headers or not checkpoint.tensors.keys() <= manifest.tensors.keys():
        raise ManifestError(
            "was not made for the weights that lie beside it",
            where=str(path),
            fix="remove it to train the folder as a model that nothing is known of",
        )
    return manifest


def source_name(surgery: Manifest | None) -> str:
    """A name for what is trained that no source of its surgery has."""
    taken = surgery.sources if surgery else {}
    name, count = _NAME, 1
    while name in taken:
        count += 1
        name = f"{_NAME}-{count}"
    return name


def source_entry(checkpoint: Checkpoint, surgery: Manifest | None) -> dict[str, Any]:
    """What is trained, by digests of its config, manifest and headers.

    Raises:
        CheckpointError: it cannot be read any more.
    """
    try:
        config = (checkpoint.path / "config.json").read_bytes()
    except OSError as error:
        what = f"cannot be read any more: {error.strerror}"
        raise CheckpointError(what, where=str(error.filename)) from None
    timeless = surgery and replace(surgery, created=dict.fromkeys(surgery.created, ""))
    headers = _headers(checkpoint)
    sizes = {path.name: found.nbytes for path, found in checkpoint.identities.items()}
    return {
        "folder": printable(checkpoint.path.resolve().name),
        "config": hashlib.sha256(config).hexdigest(),
        "manifest": timeless and hashlib.sha256(encode_manifest(timeless)).hexdigest(),
        "files": {
            name: {"bytes": sizes[name], "header": header} for name, header in headers.items()
        },
    }


def layer_map_of(surgery: Manifest | None, depth: int) -> tuple[Mapping[str, Any], ...]:
    """The surgery's layer map; without one, each of `depth` layers is its own."""
    if surgery is not None:
        return surgery.layer_map
    return tuple(
        {"sources": [[_NAME, layer]], "new": False, "seam": False} for layer in range(depth)
    )


def origin_of(
    tensor: str,
    surgery: Manifest | None,
    parameters: Mapping[str, Any],
    *,
    is_trained: bool,
) -> Mapping[str, Any]:
    """Where a tensor came from: what the surgery says of it, and the training over that."""
    before: Mapping[str, Any] = {"source": _NAME, "tensor": tensor}
    if surgery is not None:
        before = surgery.tensors[tensor]["origin"]
    if not is_trained:
        return before
    return {"operator": "train", "parameters": dict(parameters), "inputs": [before]}


def digest_of(parts: Sequence[Any]) -> str:
    """SHA-256 of values of JSON's own types."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part).encode() + b"\n")
    return digest.hexdigest()


def _headers(checkpoint: Checkpoint) -> dict[str, str]:
    """SHA-256 of the header of each shard, by its name."""
    paths: Collection[Any] = {tensor.path for tensor in checkpoint.tensors.values()}
    try:
        return {path.name: hashlib.sha256(header_bytes(path)).hexdigest() for path in sorted(paths)}
    except OSError as error:
        what = f"cannot be read any more: {error.strerror}"
        raise CheckpointError(what, where=str(error.filename)) from None
