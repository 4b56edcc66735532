"""Whether a file in the cache has the bytes that its repository says."""

import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path

from tensorsurgeon.checkpoint import FileIdentity, RemoteFile, Repo
from tensorsurgeon.errors import HubError
from tensorsurgeon.hub.cache import RepoFolder

_PIECE = 1 << 20


class StoppedError(Exception):
    """Raised in a thread when another one failed or the user interrupted."""


def is_known_intact(path: Path, file: RemoteFile, identity: FileIdentity) -> bool:
    """Whether a large file was digested before, and has not been written to since."""
    if file.sha256 is None:
        return False
    try:
        return _mark(path, file.sha256).read_text() == _seen(identity)
    except OSError:
        return False


def check_intact(
    repo: Repo, path: Path, identity: FileIdentity, stop: threading.Event | None = None
) -> None:
    """Digest a file; one that differs is removed from the cache.

    Raises:
        HubError: it has other bytes than the repository says.
        StoppedError: `stop` was set.
    """
    file = repo.files[path.name]
    expected = file.sha256 or file.git
    if expected is None or is_known_intact(path, file, identity):
        return
    if _digest(path, file, stop or threading.Event()) != expected:
        _remove(path)
        raise HubError(
            "has other bytes than its repository says",
            where=f"{repo}/{path.name}",
            fix="run again: it was removed from the cache, and is fetched once more",
        )
    if file.sha256 is not None:
        mark = _mark(path, file.sha256)
        with suppress(OSError):  # a cache that cannot be written to; then it is digested again
            mark.parent.mkdir(exist_ok=True)
            mark.write_text(_seen(identity))


def _mark(path: Path, sha256: str) -> Path:
    return RepoFolder.around(path).kept(sha256)


def _seen(identity: FileIdentity) -> str:
    return f"{identity.nbytes} {identity.modified} {identity.inode}\n"


def _digest(path: Path, file: RemoteFile, stop: threading.Event) -> str:
    """SHA-256; of a small file the SHA-1 by which Git names it."""
    digest = hashlib.sha256()
    if file.sha256 is None:
        digest = hashlib.sha1(b"blob %d\0" % file.nbytes, usedforsecurity=False)
    buffer = memoryview(bytearray(min(_PIECE, max(file.nbytes, 1))))
    with path.open("rb", buffering=0) as opened:
        while count := opened.readinto(buffer):
            digest.update(buffer[:count])
            if stop.is_set():
                raise StoppedError
    return digest.hexdigest()


def _remove(path: Path) -> None:
    """Remove a file of the cache with all the links that lead to it."""
    while True:
        target = Path(os.readlink(path)) if path.is_symlink() else None
        following = path.parent / target if target else None
        path.unlink(missing_ok=True)
        if following is None:
            return
        path = following
