"""A repository's folder in the cache: the client's files there, and what is kept beside them.

The client's layout is `refs/REVISION`, `snapshots/COMMIT/NAME` and `blobs/DIGEST`. In
`.tensorsurgeon/` beside these lies what would otherwise be asked for again::

    SHA-256            a large blob that was found intact; see `intact.py`
    listings/COMMIT    which files a commit has at its top; see `listing.py`
    headers/DIGEST     how a shard begins; see `headers.py`

A commit never changes, nor what a digest is of, so none of it becomes wrong with time. It may be
somebody else's cache: what is read from it is checked as if the network had sent it. Where it
cannot be written to, nothing is kept.
"""

import os
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from tensorsurgeon.checkpoint import RemoteFile

_KEPT = ".tensorsurgeon"

COMMIT = re.compile("[0-9a-f]{40}")
"""A commit's name in full."""


@dataclass(frozen=True, kw_only=True)
class RepoFolder:
    """The folder of one repository.

    Attributes:
        root: the folder; it may not be there yet.
    """

    root: Path

    @classmethod
    def of(cls, repo: str) -> "RepoFolder":
        """The folder of `org/name`."""
        name = repo_folder_name(repo_id=repo, repo_type="model")
        return cls(root=Path(constants.HF_HUB_CACHE) / name)

    @classmethod
    def around(cls, path: Path) -> "RepoFolder":
        """The folder that a file of a snapshot is in."""
        return cls(root=path.parent.parent.parent)

    def snapshot(self, commit: str) -> Path:
        """Where the files of a commit are."""
        return self.root / "snapshots" / commit

    def kept(self, *names: str) -> Path:
        """Where something is kept."""
        return self.root.joinpath(_KEPT, *names)

    def commit_of(self, revision: str) -> str | None:
        """The commit that a branch or tag was when it was last asked for; None if it never was."""
        if COMMIT.fullmatch(revision):
            return revision
        if not _stays_inside(revision):
            return None
        commit = (_read(self.root / "refs" / revision, limit=100) or b"").decode(errors="replace")
        return commit if COMMIT.fullmatch(commit) else None

    def note_commit(self, revision: str, commit: str) -> None:
        """Note what a branch or tag is now, as the client does."""
        if revision == commit or not _stays_inside(revision):
            return
        if self.commit_of(revision) != commit:
            _write(self.root / "refs" / revision, commit.encode())

    def link(self, commit: str, files: Mapping[str, RemoteFile]) -> None:
        """Put into a commit's snapshot what the cache has of another one, as the client would."""
        snapshot = self.snapshot(commit)
        for name, file in files.items():
            digest = file.sha256 or file.git
            blob = self.root / "blobs" / (digest or "-")
            with suppress(OSError):  # no blob, or a file system without links
                if blob.stat().st_size == file.nbytes and not os.path.lexists(snapshot / name):
                    snapshot.mkdir(parents=True, exist_ok=True)
                    (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))

    def read(self, *names: str, limit: int) -> bytes | None:
        """What is kept under a name; None if nothing is, or more than `limit` bytes."""
        return _read(self.kept(*names), limit=limit)

    def keep(self, *names: str, data: bytes) -> None:
        """Keep something, if the cache can be written to."""
        _write(self.kept(*names), data)


def _stays_inside(revision: str) -> bool:
    parts = PurePosixPath(revision).parts
    return bool(parts) and not {"..", "/"} & set(parts) and revision.isprintable()


def _read(path: Path, *, limit: int) -> bytes | None:
    with suppress(OSError, ValueError):
        if path.is_file() and path.stat().st_size <= limit:  # opening a pipe would wait for ever
            return path.read_bytes()
    return None


def _write(path: Path, data: bytes) -> None:
    """Write a file so that it is never seen in part."""
    part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
