"""The headers of a checkpoint's shards, and whether its index agrees with them."""

from collections.abc import Iterable
from pathlib import Path

from tensorsurgeon.checkpoint import INDEX_NAME, SINGLE_NAME
from tensorsurgeon.checkpoint.header import HEADER_LIMIT, read_header
from tensorsurgeon.checkpoint.index_file import read_index
from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.specs import StoredTensor
from tensorsurgeon.verify.listing import Listing, usable
from tensorsurgeon.verify.outcome import Findings
from tensorsurgeon.verify.recorded import some
from tensorsurgeon.verify.second_reader import read_again

_TOTAL_LIMIT = 4 * HEADER_LIMIT
"""Most bytes of headers read in all; the largest models have a quarter of it."""

Headers = dict[str, dict[str, StoredTensor]]
"""The tensors of each shard whose header could be read, by the shard's name."""


def shards_without_manifest(folder: Path, listing: Listing, findings: Findings) -> list[str]:
    """The names of the files that a loader would read: the single one, else the index's."""
    stored = [name for name in listing if name.endswith(".safetensors")]
    chosen = stored
    if SINGLE_NAME in stored:
        chosen = [SINGLE_NAME]
    elif INDEX_NAME in listing and usable(listing, folder / INDEX_NAME, findings):
        try:
            chosen = sorted(set(read_index(folder / INDEX_NAME).weight_map.values()))
        except CheckpointError as error:
            findings.take(error)
    elif not stored:
        findings.problem(folder, "has no safetensors weights")
    if others := sorted(set(stored) - set(chosen)):
        listed = ", ".join(others[:4]) + (", …" if len(others) > 4 else "")
        findings.not_checked(f"what lies beside the weights: {listed}")
    return chosen


def read_headers(
    folder: Path, shards: Iterable[str], listing: Listing, findings: Findings
) -> Headers:
    """Every shard's header, read by us and by the safetensors library."""
    headers: Headers = {}
    left = _TOTAL_LIMIT
    for shard in shards:
        path = folder / shard
        if not usable(listing, path, findings):
            continue
        try:
            headers[shard] = read_header(path, limit=min(left, HEADER_LIMIT))
        except CheckpointError as error:
            findings.take(error)
            continue
        left -= min((t.offset for t in headers[shard].values()), default=0)
        read_again(path, headers[shard], findings)
    return headers


def check_index(
    folder: Path, shards: list[str], headers: Headers, listing: Listing, findings: Findings
) -> None:
    """Whether the index names every tensor, each in the shard that holds it."""
    path = folder / INDEX_NAME
    if INDEX_NAME not in listing or SINGLE_NAME in shards:
        if len(shards) > 1:
            findings.problem(
                folder,
                f"has {len(shards)} safetensors files but no {INDEX_NAME}",
                fix="download the index file as well",
            )
        return
    if not usable(listing, path, findings):
        return
    try:
        weight_map = read_index(path).weight_map
    except CheckpointError as error:
        findings.take(error)
        return
    for shard, tensors in headers.items():
        if wrong := [name for name in tensors if weight_map.get(name) != shard]:
            findings.problem(path, f"gives {some(wrong)} another place than {shard}, or none")
    lacking = [n for n, shard in weight_map.items() if n not in headers.get(shard, (n,))]
    if lacking:
        findings.problem(path, f"names {some(lacking)}, which its shards do not hold")
