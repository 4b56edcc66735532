"""Bytes at an offset: positioned reads into the caller's buffers, safe from any thread.

Reads rather than mappings: a mapped file that shrinks kills the process, and mapped pages count
as resident.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from tensorsurgeon.checkpoint.identity import FileIdentity, check_unchanged
from tensorsurgeon.errors import CheckpointError, fix_for
from tensorsurgeon.specs import StoredTensor


class Reader(Protocol):
    """Bytes of stored tensors, for any thread; each reads a tensor from its first byte on."""

    def read_into(self, tensor: StoredTensor, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the tensor's bytes from byte `start` of it on."""

    def finish(self) -> None:
        """Let go of what the calling thread holds of the tensors it has read."""

    def stop(self) -> None:
        """Have reads that wait for something fail now, in any thread; it is not read from again."""

    def check_unchanged(self) -> None:
        """Whether all that was read belongs together."""

    def close(self) -> None:
        """Close every file; the threads have finished."""


class ShardReader:
    """Open files of the checkpoints that are read, by path; to be closed.

    Args:
        files: their paths, and what they were when their headers were read.

    Raises:
        CheckpointError: one cannot be opened, or is another file by now.
    """

    def __init__(self, files: Mapping[Path, FileIdentity]) -> None:
        self._files = files
        self._descriptors: dict[Path, int] = {}
        try:
            for path, identity in sorted(files.items()):
                self._descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                check_unchanged(path, identity, self._descriptors[path])
        except OSError as error:
            self.close()
            what = f"cannot be opened: {error.strerror}"
            raise CheckpointError(what, where=str(path), fix=fix_for(error)) from None
        except CheckpointError:
            self.close()
            raise

    def stop(self) -> None:
        """Files wait for nothing."""

    def check_unchanged(self) -> None:
        """Whether all that was read belongs together.

        Raises:
            CheckpointError: a file was written to or replaced since its header was read.
        """
        for path, identity in self._files.items():
            check_unchanged(path, identity, self._descriptors[path])
            check_unchanged(path, identity, path)

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

    def finish(self) -> None:
        """Nothing is held but the files, which all threads share."""

    def close(self) -> None:
        """Close every file."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()


def header_bytes(path: Path) -> bytes:
    """The header of a safetensors file that was read before, length prefix included.

    Raises:
        CheckpointError: it was cut since.
        OSError: it cannot be read any more.
    """
    with path.open("rb") as file:
        prefix = file.read(8)
        header = file.read(int.from_bytes(prefix, "little"))
    if len(prefix) < 8 or len(header) < int.from_bytes(prefix, "little"):
        raise CheckpointError("was cut short while it was read", where=str(path))
    return prefix + header
