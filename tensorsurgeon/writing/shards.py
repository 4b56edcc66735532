"""The shards of a result: laid down at full size, then written at any offset by any thread."""

import errno
import os
import stat
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tensorsurgeon.checkpoint import Shard
from tensorsurgeon.specs import PAGE
from tensorsurgeon.writing.disk import Disk


class ShardFiles:
    """Open shard files, in a `with`.

    Args:
        disk: what they are on.
        folder: what they are in.
    """

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk = disk
        self._folder = folder
        self._shards: dict[str, int] = {}
        self._direct: dict[str, int] = {}
        self._written: set[str] = set()  # since the last flush
        self._noting = threading.Lock()

    def lay_down(self, shards: Iterable[Shard]) -> None:
        """Make every file at its full size, its header written."""
        for shard in shards:
            descriptor = self._disk.create(self._folder / shard.name)
            self._shards[shard.name] = descriptor
            self._disk.resize(descriptor, shard.nbytes)
            self._write_header(shard)

    def take_up(self, shards: Iterable[Shard]) -> bool:
        """Open the files another run laid down; False where they are not as it left them."""
        for shard in shards:
            try:
                flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                descriptor = os.open(self._folder / shard.name, flags)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO):
                    return False
                raise
            self._shards[shard.name] = descriptor
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size != shard.nbytes:
                return False
            # Once more: where a flush has failed, what is read may not be what is on the disk.
            self._write_header(shard)
        return True

    def _write_header(self, shard: Shard) -> None:
        self._disk.write(self._shards[shard.name], memoryview(shard.header), 0)
        self._written.add(shard.name)
        self._open_direct(shard.name)

    def _open_direct(self, shard: str) -> None:
        # Not every system and file system can write past the cache.
        with suppress(AttributeError, OSError):
            flags = os.O_WRONLY | os.O_CLOEXEC | os.O_DIRECT
            self._direct[shard] = os.open(self._folder / shard, flags)

    @property
    def are_direct(self) -> bool:
        """Whether whole pages are written past the page cache."""
        return bool(self._direct)

    def descriptor(self, shard: str) -> int:
        """The open file descriptor of a shard."""
        return self._shards[shard]

    def write(self, shard: str, offset: int, data: memoryview) -> None:
        """Write bytes at an offset of a shard, all of them.

        Args:
            shard: name of the file.
            offset: where in it, in bytes.
            data: the bytes; for direct writes they lie at `offset` modulo PAGE in memory.
        """
        self._write(shard, offset, data)
        with self._noting:  # afterwards, or a flush meanwhile would take it for done
            self._written.add(shard)

    def _write(self, shard: str, offset: int, data: memoryview) -> None:
        direct = self._direct.get(shard)
        head = min(-offset % PAGE, len(data))
        pages = (len(data) - head) // PAGE * PAGE
        if direct is None or not pages:
            self._write_cached(shard, offset, data)
            return
        self._write_cached(shard, offset, data[:head])
        try:
            self._disk.write(direct, data[head : head + pages], offset + head)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # The file system opens for direct writes, but cannot do this one.
            self._write_cached(shard, offset + head, data[head : head + pages])
        self._write_cached(shard, offset + head + pages, data[head + pages :])

    def _write_cached(self, shard: str, offset: int, data: memoryview) -> None:
        if data:
            self._disk.write(self._shards[shard], data, offset)
            if len(data) >= PAGE:
                self.start_write_back(shard, offset, len(data))

    def start_write_back(self, shard: str, offset: int, length: int) -> None:
        """Have the kernel write these bytes to disk now rather than all at the last flush.

        On dirty pages this advice starts the writing and drops nothing.
        """
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._shards[shard], offset, length, os.POSIX_FADV_DONTNEED)

    def flush(self) -> None:
        """Have every byte written so far on the disk, and the files' sizes."""
        with self._noting:
            written, self._written = self._written, set()
        for shard in sorted(written):
            self._disk.flush(self._shards[shard])

    def close(self) -> None:
        """Close every file."""
        for descriptor in (*self._shards.values(), *self._direct.values()):
            os.close(descriptor)
        self._shards.clear()
        self._direct.clear()
