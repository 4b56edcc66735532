"""Which file it is that was looked at, so that one that changes meanwhile is noticed."""

import os
from dataclasses import dataclass
from pathlib import Path

from tensorsurgeon.errors import CheckpointError


@dataclass(frozen=True, kw_only=True, slots=True)
class FileIdentity:
    """What the file system says of a file; differs as soon as the file is written or replaced.

    Attributes:
        nbytes: its size.
        modified: when it was last written, in nanoseconds.
        device: the file system it is on.
        inode: its number there.
    """

    nbytes: int
    modified: int
    device: int
    inode: int


def identify(file: Path | int) -> FileIdentity:
    """The identity of a path (links followed) or of an open file descriptor.

    Raises:
        CheckpointError: there is no such file any more.
    """
    try:
        status = os.stat(file)
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", where=str(file)) from None
    return FileIdentity(
        nbytes=status.st_size,
        modified=status.st_mtime_ns,
        device=status.st_dev,
        inode=status.st_ino,
    )


def check_unchanged(path: Path, before: FileIdentity, file: Path | int) -> None:
    """Whether a file is still the one that was looked at.

    Args:
        path: its name, for the message.
        before: what it was.
        file: the path, or an open descriptor of it.

    Raises:
        CheckpointError: it was written to or replaced since.
    """
    if identify(file) != before:
        raise CheckpointError(
            "has changed since it was looked at, so that the result would be a mixture",
            where=str(path),
            fix="run again once nothing writes to it any more",
        )
