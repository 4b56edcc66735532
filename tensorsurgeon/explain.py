"""Where a tensor of a checkpoint came from, told by the checkpoint's manifest alone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path
from typing import Any

from tensorsurgeon.arch import find_architecture
from tensorsurgeon.arch.families import DEPTH_KEYS
from tensorsurgeon.checkpoint import MANIFEST_NAME, Manifest, read_manifest
from tensorsurgeon.errors import (
    ArchitectureError,
    CheckpointError,
    ManifestError,
    MissingTensorError,
    did_you_mean,
    printable,
    shortened,
)
from tensorsurgeon.specs import LayerOrigin, SourceLayer

_MANY = 2000
"""More names than this take seconds to be searched for similar ones."""


@dataclass(frozen=True, kw_only=True)
class SourceTensor:
    """A tensor of a source, as it is there."""

    source: str
    tensor: str


@dataclass(frozen=True, kw_only=True)
class Zeros:
    """All zero."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What an operator made of its inputs.

    Attributes:
        operator: its name in recipes.
        weights: one for each input, where they were known before anything was read.
        parameters: the operator's parameters at this tensor, where the weights follow from these.
        inputs: what it was made of.
    """

    operator: str
    weights: tuple[float, ...]
    parameters: Mapping[str, Any]
    inputs: tuple["Origin", ...]


Origin = SourceTensor | Zeros | Operation


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What the manifest says of one tensor.

    Attributes:
        tensor: its name.
        dtype: its dtype, by its name in the format.
        shape: its shape.
        shard: the file that holds it.
        offset: where it begins there, in bytes.
        sha256: the digest of its bytes, hexadecimal.
        layer: which layer it belongs to; None outside the layers, and where names leave it open.
        layer_origin: where that layer came from.
        seam: whether that layer and the one before it were no neighbours in their source.
        folders: the folder of each source that it was made of, by the source's name.
        origin: how it was made.
    """

    tensor: str
    dtype: str
    shape: tuple[int, ...]
    shard: str
    offset: int
    sha256: str
    layer: int | None
    layer_origin: LayerOrigin | None
    seam: bool
    folders: Mapping[str, str]
    origin: Origin


def explain(folder: Path, tensor: str) -> Explanation:
    """Which sources a tensor came from, which layers of them, and by which operator.

    Args:
        folder: a checkpoint that has a manifest.
        tensor: the tensor's name.

    Raises:
        CheckpointError: there is no such folder.
        ManifestError: it has no manifest, or one that cannot be used.
        MissingTensorError: it has no such tensor; says which one may be meant.
    """
    manifest = _manifest(folder)
    path = folder / MANIFEST_NAME
    if tensor not in manifest.tensors:
        raise MissingTensorError(
            f"has no tensor '{shortened(tensor, 300)}'",
            where=str(folder),
            fix=did_you_mean(tensor, _similar(tensor, manifest.tensors)),
        )
    entry = manifest.tensors[tensor]
    origin = _origin(entry["origin"], path)
    layer = _layer_of(tensor, manifest)
    layer_origin, seam = None, False
    if layer is not None:
        layer_origin, seam = _layer_origin(manifest.layer_map[layer], path)
    return Explanation(
        tensor=tensor,
        dtype=entry["dtype"],
        shape=tuple(entry["shape"]),
        shard=entry["shard"],
        offset=entry["offset"],
        sha256=entry["sha256"],
        layer=layer,
        layer_origin=layer_origin,
        seam=seam,
        folders={
            source: _place(manifest.sources.get(source, {}))
            for source in dict.fromkeys(_sources_of(origin))
        },
        origin=origin,
    )


def explanation_text(explanation: Explanation) -> str:
    """An explanation for people: a few facts, then a tree of what the tensor was made of."""
    lines = [
        explanation.tensor,
        f"  {explanation.dtype} {list(explanation.shape)}, "
        f"at byte {explanation.offset} of {explanation.shard}",
        f"  sha256 {explanation.sha256}",
    ]
    if explanation.layer_origin is not None:
        seam = ", at a seam" if explanation.seam else ""
        lines.append(f"  layer {explanation.layer} from {explanation.layer_origin}{seam}")
    lines += [
        f"  source {source} is the folder {folder}"
        for source, folder in explanation.folders.items()
    ]
    copied = "copy of " if isinstance(explanation.origin, SourceTensor) else ""
    lines += _tree(explanation.origin, "  ", copied)
    return "\n".join(map(printable, lines))


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """An explanation for programs; offsets are in bytes, the origin is as in the manifest."""
    origin = explanation.layer_origin
    return {
        "tensor": explanation.tensor,
        "dtype": explanation.dtype,
        "shape": list(explanation.shape),
        "shard": explanation.shard,
        "offset": explanation.offset,
        "sha256": explanation.sha256,
        "layer": explanation.layer,
        "layer_origin": origin
        and {
            "sources": [{"source": s.source, "layer": s.layer} for s in origin.sources],
            "new": origin.new,
            "seam": explanation.seam,
        },
        "sources": dict(explanation.folders),
        "origin": _origin_json(explanation.origin),
    }


def _place(source: Mapping[str, Any]) -> str:
    """Where a source came from: a commit of a repository, or the name of its folder."""
    if "repo" in source:
        return f"{source['repo']}@{source.get('commit', '')}"
    return str(source.get("folder", ""))


def _manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST_NAME
    try:
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "there is no such folder"
            raise CheckpointError(what, where=str(folder))
        if not path.exists():
            raise ManifestError(
                f"has no {MANIFEST_NAME}, which would tell where its tensors came from",
                where=str(folder),
                fix="name a folder that 'tensorsurgeon apply' has made",
            )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"cannot be read: {reason}", where=str(folder)) from None
    return read_manifest(path)


def _similar(tensor: str, names: Mapping[str, object]) -> list[str]:
    """The names to guess from: all, or those that begin and end alike where they are many."""
    if len(names) <= _MANY:
        return list(names)

    def alike(name: str) -> int:
        return _alike(name, tensor) + _alike(name[::-1], tensor[::-1])

    return nlargest(200, names, key=alike)


def _alike(one: str, other: str) -> int:
    """How many characters two names have in common at the beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _layer_of(tensor: str, manifest: Manifest) -> int | None:
    """The layer whose number a name has; the layer map says how many there are."""
    config = {DEPTH_KEYS[0]: len(manifest.layer_map)}
    try:
        architecture = find_architecture(config, manifest.tensors, where="")
    except ArchitectureError:  # several towers have as many layers, or none is numbered so
        return None
    found = architecture.split(tensor)
    return found[0] if found else None


def _layer_origin(entry: Mapping[str, Any], path: Path) -> tuple[LayerOrigin, bool]:
    sources, new, seam = entry.get("sources"), entry.get("new"), entry.get("seam")
    if not (isinstance(sources, list) and isinstance(new, bool) and isinstance(seam, bool)):
        raise ManifestError("its layer map is not of the known form", where=str(path))
    layers = []
    for pair in sources:
        if not (isinstance(pair, list) and list(map(type, pair)) == [str, int]):
            raise ManifestError("its layer map is not of the known form", where=str(path))
        layers.append(SourceLayer(source=pair[0], layer=pair[1]))
    return LayerOrigin(sources=tuple(layers), new=new), seam


def _origin(value: object, path: Path) -> Origin:
    match value:
        case {"source": str(source), "tensor": str(tensor)}:
            return SourceTensor(source=source, tensor=tensor)
        case {"zeros": True}:
            return Zeros()
        case {"operator": str(operator), "inputs": [*inputs], **rest}:
            weights, parameters = rest.get("weights", []), rest.get("parameters", {})
            if (
                isinstance(parameters, dict)
                and isinstance(weights, list)
                and all(type(weight) in (int, float) for weight in weights)
                and len(weights) in (0, len(inputs))
            ):
                return Operation(
                    operator=operator,
                    weights=tuple(weights),
                    parameters=parameters,
                    inputs=tuple(_origin(inner, path) for inner in inputs),
                )
    raise ManifestError("an origin in it is not of a known form", where=str(path))


def _origin_json(origin: Origin) -> dict[str, Any]:
    if isinstance(origin, SourceTensor):
        return {"source": origin.source, "tensor": origin.tensor}
    if isinstance(origin, Zeros):
        return {"zeros": True}
    by_weights: dict[str, Any] = {"weights": list(origin.weights)}
    by_parameters: dict[str, Any] = {"parameters": dict(origin.parameters)}
    return {
        "operator": origin.operator,
        **(by_weights if origin.weights else by_parameters),
        "inputs": [_origin_json(inner) for inner in origin.inputs],
    }


def _sources_of(origin: Origin) -> Iterator[str]:
    if isinstance(origin, SourceTensor):
        yield origin.source
    elif isinstance(origin, Operation):
        for inner in origin.inputs:
            yield from _sources_of(inner)


def _tree(origin: Origin, indent: str, factor: str) -> list[str]:
    """The lines of an origin and, further in, of all that it was made of."""
    if isinstance(origin, SourceTensor):
        return [f"{indent}{factor}{origin.source}: {origin.tensor}"]
    if isinstance(origin, Zeros):
        return [f"{indent}{factor}zeros"]
    facts = "".join(f", {name} = {_value(value)}" for name, value in origin.parameters.items())
    lines = [f"{indent}{factor}{origin.operator}{facts} of"]
    weights: Sequence[float | None] = origin.weights or [None] * len(origin.inputs)
    for weight, inner in zip(weights, origin.inputs, strict=True):
        lines += _tree(inner, indent + "  ", "" if weight is None else f"{weight:.6g} * ")
    return lines


def _value(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else shortened(json.dumps(value), 200)
