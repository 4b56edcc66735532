"""Tensors that are written without a number being looked at: copied bytes, and zeros."""

import hashlib
from collections.abc import Callable, Sequence

from tensorsurgeon.checkpoint import Reader
from tensorsurgeon.execute.staging import Place, TensorWriter
from tensorsurgeon.specs import StoredTensor

CHUNK = 1 << 20
"""Bytes read at a time."""


class Copier:
    """Copies tensors for one thread.

    By way of a buffer: the digest needs every byte, and a copy inside the kernel, which goes
    through the page cache, is no faster than direct writes of what was read anyway.

    Args:
        reader: has the sources' files open.
        writer: this thread's way to the output.
        step: told the number of bytes after each piece; may raise to stop the run.
    """

    def __init__(self, reader: Reader, writer: TensorWriter, step: Callable[[int], None]) -> None:
        self._reader = reader
        self._writer = writer
        self._step = step

    def copy(self, tensor: StoredTensor, places: Sequence[Place]) -> str:
        """Copy a tensor's bytes to all the places; returns their SHA-256."""
        self._writer.start(places)
        for done in range(0, tensor.spec.nbytes, CHUNK):
            count = min(CHUNK, tensor.spec.nbytes - done)
            self._reader.read_into(tensor, done, self._writer.reserve(count))
            self._step(count)
        return self._writer.finish()


def digest_of_zeros(nbytes: int, step: Callable[[int], None]) -> str:
    """SHA-256 of so many zeros, which need not be written: a new file reads as zeros.

    Args:
        nbytes: how many.
        step: called after each piece with 0, since nothing was read; may raise to stop the run.
    """
    digest, zeros = hashlib.sha256(), bytes(min(CHUNK, nbytes))
    for done in range(0, nbytes, CHUNK):
        digest.update(zeros[: nbytes - done])
        step(0)
    return digest.hexdigest()
