"""model.safetensors.index.json: which shard holds which tensor, checked before it is believed."""

import os
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorsurgeon.checkpoint.json_scan import NAME_SHOWN, Scanner
from tensorsurgeon.checkpoint.links import STAY_INSIDE, leaves
from tensorsurgeon.checkpoint.strict_json import StrictJSONError
from tensorsurgeon.errors import IndexFileError, MissingTensorError, shortened

INDEX_NAME = "model.safetensors.index.json"
INDEX_LIMIT = 50_000_000
"""Largest index read, in bytes; one of 200,000 tensors with long names takes 30 MB."""

TENSOR_LIMIT = 400_000
"""Most tensors of an index; the largest models known have half of them."""

SHARD_LIMIT = 10_000
"""Most shards of an index; the largest models known have a few hundred."""

OTHER_LIMIT = 100_000
"""Most bytes of anything else in an index: its metadata takes 50."""

_OTHER_KEYS = 1000


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """What an index says.

    Attributes:
        weight_map: tensor name to the name of a file in the same folder.
        total_size: bytes of all tensors, as it claims; whatever stands there, None without.
    """

    weight_map: dict[str, str]
    total_size: Any


def read_index(path: Path, elsewhere: Container[str] = ()) -> ShardIndex:
    """Read and check an index.

    Args:
        path: the file.
        elsewhere: names of shards that need not lie beside it.

    Raises:
        IndexFileError: not such an index, or a shard name that could lead out of the folder.
        MissingTensorError: a shard that is named is not there; all of them are listed.
    """
    where = str(path)
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise IndexFileError("is not a regular file", where=where)
        if path.stat().st_size > INDEX_LIMIT:
            raise IndexFileError(f"is larger than {INDEX_LIMIT} bytes", where=where)
        index = _parse(path.read_bytes(), where)
    except StrictJSONError as problem:
        raise IndexFileError(str(problem), where=where) from None
    except OSError as error:
        raise IndexFileError(f"cannot be read: {error.strerror}", where=where) from None
    if not index.weight_map:
        raise IndexFileError("has no 'weight_map' that names tensors", where=where)
    shards = sorted(set(index.weight_map.values()))
    _check_shards(path, [shard for shard in shards if shard not in elsewhere])
    return index


def _check_shards(path: Path, shards: list[str]) -> None:
    # os.path.exists rather than Path's, which raises where a name is too long for the disk.
    missing = [shard for shard in shards if not os.path.exists(path.parent / shard)]
    if missing:
        raise MissingTensorError(
            f"{len(missing)} of {len(shards)} shards are missing: "
            + ", ".join(shortened(shard) for shard in missing[:8]),
            where=str(path),
            fix="download the missing files",
        )
    for shard in shards:
        if leaves(path.parent, shard):
            raise IndexFileError(
                f"shard '{shard}' is a link that leaves its folder",
                where=str(path.parent),
                fix=STAY_INSIDE,
            )


def _parse(data: bytes, where: str) -> ShardIndex:
    scan = Scanner(data)
    weight_map: dict[str, str] = {}
    total_size = None
    for key in scan.members(_OTHER_KEYS):
        if key == "weight_map" and scan.comes(b"{"):
            weight_map = _parse_weight_map(scan, where)
        else:
            value = scan.value(OTHER_LIMIT)
            if key == "metadata" and isinstance(value, dict):
                total_size = value.get("total_size")
    scan.end()
    return ShardIndex(weight_map=weight_map, total_size=total_size)


def _parse_weight_map(scan: Scanner, where: str) -> dict[str, str]:
    weight_map: dict[str, str] = {}
    names: dict[str, str] = {}  # each shard's name once, though every tensor of it says it
    for tensor in scan.members(TENSOR_LIMIT):
        place = scan.place
        shard = scan.string() if scan.comes(b'"') else scan.value(OTHER_LIMIT)
        if not isinstance(shard, str) or (shard not in names and not _is_plain_name(shard)):
            said = shortened(repr(shard), NAME_SHOWN)
            raise IndexFileError(
                f"tensor '{shortened(tensor, NAME_SHOWN)}' is said to be in {said} at byte {place}",
                where=where,
                fix="a shard is the plain name of a .safetensors file in the same folder",
            )
        weight_map[tensor] = names.setdefault(shard, shard)
        if len(names) > SHARD_LIMIT:
            scan.fail(f"more than {SHARD_LIMIT} shards")
    return weight_map


def _is_plain_name(name: str) -> bool:
    forbidden = set("/\\:\0")
    return name.endswith(".safetensors") and name.isprintable() and not forbidden & set(name)
