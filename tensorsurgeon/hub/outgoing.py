"""The files of a folder that go to the Hub: which they are, and their digests."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tensorsurgeon.checkpoint import FileIdentity, RemoteFile, identify
from tensorsurgeon.checkpoint.links import STAY_INSIDE, leaves
from tensorsurgeon.errors import PushError
from tensorsurgeon.hub.intact import StoppedError

_PIECE = 1 << 20

REGULAR_LIMIT = 11_000_000
"""Largest file that may become one of Git itself, in bytes; the Hub's limit is lower."""


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A file that is to be sent.

    Attributes:
        name: its path in the repository.
        path: where it is.
        identity: the file as it was before it was digested.
        content: its size and digests; that of Git is None for what is too large for Git.
        data: its bytes, of a small one: what is committed is what was digested.
    """

    name: str
    path: Path
    identity: FileIdentity
    content: RemoteFile
    data: bytes | None = None

    @property
    def is_shard(self) -> bool:
        """Whether it holds tensors, and is a large file whatever its size."""
        return self.name.endswith(".safetensors")

    def check_unchanged(self) -> None:
        """Whether the file still is what was digested.

        Raises:
            PushError: it is not.
        """
        if not self.path.is_file() or identify(self.path) != self.identity:
            raise changed(self.path)


def changed(path: Path) -> PushError:
    """The error that a file or folder is not what was digested any more."""
    return PushError(
        "has changed while it was sent: nothing is committed",
        where=str(path),
        fix="run again once nothing writes to it any more",
    )


def differing(files: Mapping[str, RemoteFile], there: Mapping[str, RemoteFile]) -> list[str]:
    """The names of those files that a repository lacks, or has with other bytes.

    Args:
        files: what was sent, with all digests.
        there: what the repository lists, with one digest each.
    """
    return [name for name, file in files.items() if not _is_at(file, there.get(name))]


def _is_at(file: RemoteFile, there: RemoteFile | None) -> bool:
    if there is None or there.nbytes != file.nbytes:
        return False
    return there.sha256 == file.sha256 if there.sha256 else there.git == file.git


def find_files(folder: Path) -> dict[str, Path]:
    """Every file in a folder and below, by its path there; hidden ones are left out.

    Raises:
        PushError: one is a link that leaves the folder, a pipe or the like, or has a name that
            cannot be told to the Hub.
    """
    return {path.relative_to(folder).as_posix(): path for path in _walk(folder, folder)}


def _walk(root: Path, folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise PushError(f"cannot be read: {error.strerror}", where=str(folder)) from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if not entry.name.isprintable() or "\\" in entry.name:
            raise PushError("has a name that is not plain text", where=str(entry), fix="rename it")
        if leaves(root, str(entry.relative_to(root))):
            raise PushError("is a link that leaves its folder", where=str(entry), fix=STAY_INSIDE)
        if entry.is_dir() and not entry.is_symlink():
            yield from _walk(root, entry)
        elif entry.is_file():
            yield entry
        else:
            raise PushError("is not a regular file", where=str(entry), fix="remove it")


def digested(
    name: str, path: Path, stop: threading.Event, advance: Callable[[int], None]
) -> Outgoing:
    """Read a file for its digests.

    Args:
        name: its path in the repository.
        path: the file.
        stop: ends it early.
        advance: told the number of bytes whenever some were read.

    Raises:
        PushError: it cannot be read, or is written to meanwhile.
        StoppedError: `stop` was set.
    """
    identity = identify(path)
    sha256 = hashlib.sha256()
    git = hashlib.sha1(b"blob %d\0" % identity.nbytes, usedforsecurity=False)
    is_small = identity.nbytes <= REGULAR_LIMIT and not name.endswith(".safetensors")
    data = bytearray()
    buffer = memoryview(bytearray(min(_PIECE, max(identity.nbytes, 1))))
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                sha256.update(buffer[:count])
                if is_small:
                    git.update(buffer[:count])
                    data += buffer[:count]
                advance(count)
                if stop.is_set():
                    raise StoppedError
    except OSError as error:
        raise PushError(f"cannot be read: {error.strerror}", where=str(path)) from None
    content = RemoteFile(
        nbytes=identity.nbytes,
        sha256=sha256.hexdigest(),
        git=git.hexdigest() if is_small else None,
    )
    found = Outgoing(
        name=name,
        path=path,
        identity=identity,
        content=content,
        data=bytes(data) if is_small else None,
    )
    found.check_unchanged()
    return found
