"""Bytes at an offset: positioned reads into the caller's buffers, safe from any thread.

Reads rather than mappings: a mapped file that shrinks kills the process, and mapped pages count
as resident.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.specs import StoredTensor


class ShardReader:
    """Open files of the checkpoints that are read, by path; close it, or use it in a `with`."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._descriptors: dict[Path, int] = {}
        try:
            for path in sorted(set(paths)):
                self._descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self.close()
            raise CheckpointError(f"cannot be opened: {error.strerror}", where=str(path)) from None

    def descriptor(self, path: Path) -> int:
        """The open file descriptor of a path given at the start."""
        return self._descriptors[path]

    def read_into(self, tensor: StoredTensor, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the tensor's bytes from byte `start` of it on.

        Raises:
            CheckpointError: the file ended early or the disk failed.
        """
        descriptor = self._descriptors[tensor.path]
        at, done = tensor.offset + start, 0
        while done < len(buffer):
            try:
                got = os.preadv(descriptor, [buffer[done:]], at + done)
            except OSError as error:
                raise CheckpointError(
                    f"reading '{tensor.spec.name}' failed at byte {at + done}: {error.strerror}",
                    where=str(tensor.path),
                ) from None
            if got == 0:
                raise CheckpointError(
                    f"ended at byte {at + done}, inside '{tensor.spec.name}': "
                    "it was cut short while it was read",
                    where=str(tensor.path),
                )
            done += got

    def close(self) -> None:
        """Close every file."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
