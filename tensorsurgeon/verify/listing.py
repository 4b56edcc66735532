"""What lies in a folder, before any of it is opened."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tensorsurgeon.checkpoint import FileIdentity, identify
from tensorsurgeon.checkpoint.links import leaves
from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.verify.outcome import Findings

_BESIDE = (
    *("README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "NOTICE.txt", "USE_POLICY.md"),
    *(".gitattributes", ".gitignore", ".git", ".cache"),
)
"""What the Hub's tools and people put beside a checkpoint; no manifest names it."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name in the folder.

    Attributes:
        path: where it is.
        is_folder: whether it is a folder.
        flaw: why it must not be opened; empty for a regular file.
        identity: a regular file as it was before anything was read.
    """

    path: Path
    is_folder: bool = False
    flaw: str = ""
    identity: FileIdentity | None = None


Listing = Mapping[str, Entry]
"""The entries of a folder, by name, sorted."""


def list_folder(folder: Path) -> Listing:
    """All that a folder holds itself; other folders in it are not entered.

    Raises:
        CheckpointError: there is no such folder, or it cannot be read.
    """
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        raise CheckpointError("there is no such folder", where=str(folder)) from None
    except NotADirectoryError:
        raise CheckpointError("is not a folder", where=str(folder)) from None
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", where=str(folder)) from None
    except ValueError as error:  # a NUL in the name
        raise CheckpointError(f"cannot be read: {error}", where=str(folder)) from None
    return {name: _entry(folder / name) for name in names}


def usable(listing: Listing, path: Path, findings: Findings) -> FileIdentity | None:
    """The identity of a regular file of the folder; where it is none, a problem is noted."""
    entry = listing.get(path.name)
    if entry is None:
        findings.problem(path, "is missing", fix="download or make the checkpoint again")
    elif entry.flaw:
        findings.problem(path, entry.flaw, fix="put the file itself there")
    else:
        return entry.identity
    return None


def is_beside(name: str) -> bool:
    """Whether a file or folder may lie beside a checkpoint without being part of it."""
    return name in _BESIDE


def is_plain_name(name: str) -> bool:
    """Whether a name can only be that of an entry of the folder itself."""
    return bool(name) and name not in (".", "..") and not set("/\\\0") & set(name)


def _entry(path: Path) -> Entry:
    try:
        mode = path.stat().st_mode
        identity = identify(path)
        if stat.S_ISDIR(mode):
            return Entry(path=path, is_folder=True, flaw="is a folder, not a file")
        if not stat.S_ISREG(mode):
            return Entry(path=path, flaw="is not a regular file")
        if leaves(path.parent, path.name):
            return Entry(path=path, flaw="is a link that leaves its folder")
    except (OSError, CheckpointError) as error:
        if path.is_symlink():
            return Entry(path=path, flaw="is a link that leads nowhere")
        reason = error.strerror if isinstance(error, OSError) else "it has just gone"
        return Entry(path=path, flaw=f"cannot be read: {reason}")
    return Entry(path=path, identity=identity)
