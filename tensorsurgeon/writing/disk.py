"""Every operation that changes a disk, in one small class.

What is written here outlives a power cut only once it was flushed: a file's bytes and size by
`flush` of the file, its name by `flush_folder` of the folder it is in. All that a run promises
rests on the order of these calls, so there is no other way to the disk than through them, and a
test can note them down and cut the power between any two.
"""

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

_EXCHANGE = 2
"""RENAME_EXCHANGE of Linux's renameat2."""

_AT_FDCWD = -100


class Disk:
    """The disk itself. Every OSError passes through as it is."""

    def make_folder(self, path: Path) -> None:
        """Make a folder that is not there yet."""
        path.mkdir()

    def create(self, path: Path) -> int:
        """Make an empty file, replacing one that is there; returns its descriptor."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)

    def resize(self, descriptor: int, nbytes: int) -> None:
        """Give a file a size; what is added reads as zeros."""
        os.ftruncate(descriptor, nbytes)

    def write(self, descriptor: int, data: memoryview, offset: int) -> None:
        """Write all of `data` at an offset, in as many calls as the system takes for it."""
        done = 0
        while done < len(data):
            done += os.pwrite(descriptor, data[done:], offset + done)

    def flush(self, descriptor: int) -> None:
        """Have a file's bytes and its size on the disk."""
        if hasattr(fcntl, "F_FULLFSYNC"):  # elsewhere fsync does not stop at the disk's own cache
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(descriptor)

    def flush_folder(self, path: Path) -> None:
        """Have the names in a folder on the disk, and what was renamed and removed there."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, path: Path, target: Path) -> None:
        """Give a file or folder another name."""
        path.rename(target)

    def exchange(self, one: Path, other: Path) -> bool:
        """Swap two folders in one step; False where the system or file system cannot."""
        with suppress(AttributeError, OSError):
            import ctypes

            rename = ctypes.CDLL(None, use_errno=True).renameat2
            names = os.fsencode(one), os.fsencode(other)
            return bool(rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE) == 0)
        return False

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder that is empty."""
        path.unlink() if not path.is_dir() or path.is_symlink() else path.rmdir()

    def remove_folder(self, path: Path) -> None:
        """Remove a folder that is empty, and nothing else."""
        if path.is_symlink() or not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        self.remove(path)

    def remove_tree(self, path: Path) -> None:
        """Remove a folder with all that is in it, or a file; nothing if it is not there."""
        if path.is_dir() and not path.is_symlink():
            for inside in path.iterdir():
                self.remove_tree(inside)
        with suppress(FileNotFoundError):
            self.remove(path)

    def write_file(self, path: Path, data: bytes) -> None:
        """Make a file of these bytes and flush it."""
        descriptor = self.create(path)
        try:
            self.write(descriptor, memoryview(data), 0)
            self.flush(descriptor)
        finally:
            os.close(descriptor)
