"""What the surgery did to each layer, from the checkpoint's manifest."""

from dataclasses import dataclass

from tensorsurgeon.checkpoint import MANIFEST_NAME, Checkpoint, read_manifest
from tensorsurgeon.errors import ManifestError


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
