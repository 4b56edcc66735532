"""One thread's way to the output: bytes in order, gathered into large writes past the page cache.

Direct writes must begin and end on a page, in the file and in memory. So a tensor's bytes are
gathered in a page-aligned buffer at the place within a page that they have in the file; whole
pages go directly, and only the two ends of a tensor, which share a page with its neighbours, go
through the cache. The output then neither pushes the sources out of the cache nor waits for one
large flush at the end. What is written is digested on its way.
"""

import hashlib
import mmap
from collections.abc import Sequence

from tensorsurgeon.specs import PAGE, STAGING
from tensorsurgeon.writing import ShardFiles

Place = tuple[str, int]
"""A shard, and an offset in it in bytes."""


class TensorWriter:
    """Writes tensors one after the other, each from its first byte to its last.

    Args:
        output: where to.
    """

    def __init__(self, output: ShardFiles) -> None:
        self._output = output
        self._digest = hashlib.sha256()
        self._memory = memoryview(mmap.mmap(-1, STAGING + PAGE))  # begins on a page
        self._shards: list[str] = []
        self._offsets: list[int] = []
        self._begin = self._end = 0

    def start(self, places: Sequence[Place]) -> None:
        """Begin a tensor, to be written to one or several places, all alike within a page."""
        self._digest = hashlib.sha256()
        self._shards = [shard for shard, _ in places]
        self._offsets = [offset for _, offset in places]
        self._begin = self._end = self._offsets[0] % PAGE

    def reserve(self, count: int) -> memoryview:
        """Where the tensor's next `count` bytes go, at most STAGING; fill it before going on."""
        if self._end + count > len(self._memory):
            self._spill()
        self._end += count
        return self._memory[self._end - count : self._end]

    def finish(self) -> str:
        """Write what is left of the tensor; returns the SHA-256 of all of it, hexadecimal."""
        self._write(self._end)
        return self._digest.hexdigest()

    def _spill(self) -> None:
        """Write up to the last whole page, and keep what comes after it."""
        rest = (self._offsets[0] + self._end - self._begin) % PAGE
        cut = self._end - rest
        self._write(cut)
        self._offsets = [offset + cut - self._begin for offset in self._offsets]
        self._memory[:rest] = self._memory[cut : self._end]
        self._begin, self._end = 0, rest

    def _write(self, end: int) -> None:
        data = self._memory[self._begin : end]
        self._digest.update(data)
        for shard, offset in zip(self._shards, self._offsets, strict=True):
            self._output.write(shard, offset, data)
