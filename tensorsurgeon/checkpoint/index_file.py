"""model.safetensors.index.json: which shard holds which tensor, checked before it is believed."""

from pathlib import Path

from tensorsurgeon.checkpoint.strict_json import StrictJSONError, parse_object
from tensorsurgeon.errors import IndexFileError, MissingTensorError

INDEX_NAME = "model.safetensors.index.json"
INDEX_LIMIT = 100_000_000


def read_weight_map(path: Path) -> dict[str, str]:
    """The weight map: tensor name to the name of a file in the same folder.

    Raises:
        IndexFileError: not such an index, or a shard name that could lead out of the folder.
        MissingTensorError: a shard that is named is not there; all of them are listed.
    """
    where = str(path)
    try:
        if path.stat().st_size > INDEX_LIMIT:
            raise IndexFileError(f"is larger than {INDEX_LIMIT} bytes", where=where)
        index = parse_object(path.read_bytes())
    except StrictJSONError as problem:
        raise IndexFileError(str(problem), where=where) from None
    except OSError as error:
        raise IndexFileError(f"cannot be read: {error.strerror}", where=where) from None
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise IndexFileError("has no 'weight_map' that names tensors", where=where)
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not _is_plain_name(shard):
            raise IndexFileError(
                f"tensor '{tensor}' is said to be in {shard!r}",
                where=where,
                fix="a shard is the plain name of a .safetensors file in the same folder",
            )
    shards = sorted(set(weight_map.values()))
    for shard in shards:
        _check_stays_inside(path.parent, shard)
    missing = [shard for shard in shards if not (path.parent / shard).exists()]
    if missing:
        raise MissingTensorError(
            f"{len(missing)} of {len(shards)} shards are missing: {', '.join(missing[:8])}",
            where=where,
            fix="download the missing files",
        )
    return weight_map


def _is_plain_name(name: str) -> bool:
    forbidden = set("/\\:\0")
    return name.endswith(".safetensors") and name.isprintable() and not forbidden & set(name)


def _check_stays_inside(folder: Path, shard: str) -> None:
    """A link may only lead to the folder itself or, in the Hub's cache, to the repo's blobs."""
    root = folder.resolve()
    if root.parent.name == "snapshots":
        root = root.parent.parent
    if not (folder / shard).resolve().is_relative_to(root):
        raise IndexFileError(
            f"shard '{shard}' is a link that leaves its folder",
            where=str(folder),
            fix="put the file itself there, or name the folder it is in",
        )
