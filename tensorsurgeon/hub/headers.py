"""The headers of shards that are not here: read by ranges, and kept."""

import hashlib
import struct
from pathlib import Path

from tensorsurgeon.checkpoint import RemoteFile, Repo
from tensorsurgeon.checkpoint.header import HEADER_LIMIT, parse_start
from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.hub.cache import RepoFolder
from tensorsurgeon.hub.errors import explained, lacking_error
from tensorsurgeon.hub.requests import read_part
from tensorsurgeon.hub.threads import in_threads

START = 8192
"""Bytes read at first of a shard: most headers are shorter."""

CONNECTIONS = 8
"""Headers on their way at a time."""

KEPT_LIMIT = 1_000_000
"""Longest header kept, in bytes; one of 8,000 tensors takes as much."""

_DIGEST = 32


def read_starts(repo: Repo, folder: RepoFolder, names: list[str]) -> dict[str, bytes]:
    """The headers of shards with their lengths before them.

    Raises:
        HubError: one cannot be had.
    """
    return in_threads(lambda name: _start(repo, folder, name), names, CONNECTIONS)


def forget_start(folder: RepoFolder, file: RemoteFile) -> None:
    """Do not keep a header any longer."""
    folder.kept("headers", _name(file)).unlink(missing_ok=True)


def _start(repo: Repo, folder: RepoFolder, name: str) -> bytes:
    file, path = repo.files[name], folder.snapshot(repo.commit) / name
    if (start := _kept(folder, file, path)) is not None:
        return start
    if repo.lost:
        raise lacking_error(str(repo), (name,), repo.lost)
    start = _asked(repo, name)
    if _name(file) and len(start) <= KEPT_LIMIT and _is_sound(start, file, path):
        folder.keep("headers", _name(file), data=hashlib.sha256(start).digest() + start)
    return start


def _kept(folder: RepoFolder, file: RemoteFile, path: Path) -> bytes | None:
    """A header that was kept; its digest is against damage, not against whoever forges both."""
    kept = folder.read("headers", _name(file) or "-", limit=_DIGEST + KEPT_LIMIT) or b""
    start = kept[_DIGEST:]
    sound = hashlib.sha256(start).digest() == kept[:_DIGEST] and _is_sound(start, file, path)
    return start if sound else None


def _is_sound(start: bytes, file: RemoteFile, path: Path) -> bool:
    try:
        parse_start(start, file.nbytes, path)
    except CheckpointError:
        return False
    return True


def _name(file: RemoteFile) -> str:
    return file.sha256 or file.git or ""


def _asked(repo: Repo, name: str) -> bytes:
    size = repo.files[name].nbytes
    if not size:
        return b""
    with explained(repo.name, revision=repo.revision, file=name):
        first = read_part(repo.name, repo.commit, name, 0, min(START, size), size)
        if len(first.data) < 8:
            return first.data
        end = 8 + int(struct.unpack_from("<Q", first.data)[0])
        if end <= len(first.data) or end > min(size, 8 + HEADER_LIMIT):
            return first.data[:end]  # what is too long for a header is refused by its reader
        begin = len(first.data)
        rest = read_part(repo.name, repo.commit, name, begin, end - begin, size)
    if rest.etag != first.etag:
        raise CheckpointError("has changed while it was read", where=f"{repo}/{name}")
    return first.data + rest.data
