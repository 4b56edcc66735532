"""What the surgery did to each layer, and to which models, from the checkpoint's manifest."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tensorsurgeon.checkpoint import (
    MANIFEST_NAME,
    Checkpoint,
    Manifest,
    header_bytes,
    read_manifest,
)
from tensorsurgeon.errors import CheckpointError, ManifestError, fix_for
from tensorsurgeon.specs import StoredTensor

_COMPARED = 1 << 26
"""Bytes of tensors that tell a model from another of the same shapes."""


@dataclass(frozen=True, kw_only=True)
class LayerOfMap:
    """Where a layer came from.

    Attributes:
        sources: the source layers it is made of, each a source's name and a layer's index.
        new: whether it was added as identity.
        seam: whether it gets another input than in its source.
    """

    sources: tuple[tuple[str, int], ...]
    new: bool = False
    seam: bool = False


def read_layer_map(checkpoint: Checkpoint, depth: int) -> tuple[LayerOfMap, ...]:
    """The layer map of a checkpoint; without a manifest, each layer is its own.

    Args:
        checkpoint: the checkpoint.
        depth: how many layers its model has.

    Raises:
        ManifestError: the manifest is damaged, or of another model.
    """
    path = checkpoint.path / MANIFEST_NAME
    if not path.exists():
        return tuple(LayerOfMap(sources=(("model", layer),)) for layer in range(depth))
    entries = read_manifest(path).layer_map
    if len(entries) != depth:
        what = f"speaks of {len(entries)} layers, and the model has {depth}"
        raise ManifestError(what, where=str(path))
    try:
        return tuple(
            LayerOfMap(
                sources=tuple((str(name), int(layer)) for name, layer in entry["sources"]),
                new=bool(entry["new"]),
                seam=bool(entry["seam"]),
            )
            for entry in entries
        )
    except (KeyError, TypeError, ValueError):
        raise ManifestError("its layer map is malformed", where=str(path)) from None


def names_in_surgery(model: Checkpoint, checkpoint: Checkpoint) -> frozenset[str]:
    """What the surgery that made a checkpoint calls a model; nothing where it took none of it.

    Config and files must be those that the surgery read. The digests of headers that a manifest has
    of files tell no weights from others of the same shapes, so some of the tensors that were
    copied, and are still in the checkpoint, must be the model's as well.

    Args:
        model: what may be a source.
        checkpoint: what the surgery made.

    Raises:
        ManifestError: the manifest is damaged.
        CheckpointError: the model cannot be read any more.
    """
    path = checkpoint.path / MANIFEST_NAME
    if not path.exists():
        return frozenset()
    manifest = read_manifest(path)
    try:
        return frozenset(
            name
            for name, entry in manifest.sources.items()
            if _has_files(model, entry) and _has_weights(model, name, manifest)
        )
    except OSError as error:
        what = f"cannot be read any more: {error.strerror}"
        raise CheckpointError(what, where=str(error.filename), fix=fix_for(error)) from None


def _has_files(model: Checkpoint, entry: Mapping[str, Any]) -> bool:
    """Whether a model has the config and the files of weights that a manifest's source has."""
    config = hashlib.sha256((model.path / "config.json").read_bytes()).hexdigest()
    shards = {path.name: path for path in model.identities if path.suffix == ".safetensors"}
    if config != entry["config"] or shards.keys() != entry["files"].keys():
        return False
    for name, path in shards.items():
        said = entry["files"][name]
        if not isinstance(said, Mapping) or model.identities[path].nbytes != said.get("bytes"):
            return False
        header = said.get("header")  # of a repository's file there is the digest of all of it
        if header is not None and hashlib.sha256(header_bytes(path)).hexdigest() != header:
            return False
    return True


def _has_weights(model: Checkpoint, name: str, manifest: Manifest) -> bool:
    """Whether the smallest tensors that were copied from a source are a model's."""
    left = _COMPARED
    for stored, digest in sorted(_copied(model, name, manifest), key=lambda c: c[0].spec.nbytes):
        left -= stored.spec.nbytes
        if left < 0:
            break
        if hashlib.sha256(_bytes_of(stored)).hexdigest() != digest:
            return False
    return True


def _copied(model: Checkpoint, name: str, manifest: Manifest) -> Iterator[tuple[StoredTensor, str]]:
    """A model's tensors that were copied from a source bit for bit, with the copies' digests."""
    for entry in manifest.tensors.values():
        origin = entry["origin"]
        stored = model.tensors.get(str(origin.get("tensor")))
        same = stored is not None and stored.spec.dtype.value == entry["dtype"]
        if stored is not None and same and origin.get("source") == name:
            yield stored, entry["sha256"]


def _bytes_of(stored: StoredTensor) -> bytes:
    with stored.path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), stored.spec.nbytes, stored.offset)
