"""Values of one tensor on their way into its place in a shard: rounded once, digested, written."""

import hashlib
import mmap
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from tensorsurgeon.checkpoint import Reader
from tensorsurgeon.errors import OutputError
from tensorsurgeon.specs import PAGE, STAGING, TORCH_NAMES
from tensorsurgeon.trainer.export.plan import ExportedTensor
from tensorsurgeon.writing import ShardFiles

TORCH_DTYPES = {dtype: getattr(torch, name) for name, dtype in TORCH_NAMES.items()}

Fill = Callable[[int, memoryview], None]
"""Fills a piece of a tensor, given where it begins in bytes."""


class TensorWriter:
    """Writes tensors one after the other, a few MB at a time.

    Args:
        reader: has the shards open that were trained.
        shards: where to.
    """

    def __init__(self, reader: Reader, shards: ShardFiles) -> None:
        self._reader = reader
        self._shards = shards
        self._memory = mmap.mmap(-1, STAGING)  # begins on a page, as direct writes need

    def close(self) -> None:
        """Let go of the memory."""
        with suppress(BufferError):  # of what failed, its traceback may hold a piece still
            self._memory.close()

    def write(self, tensor: ExportedTensor, values: Tensor | None) -> str:
        """Write one tensor.

        Args:
            tensor: which, and where it goes.
            values: all of it, on the processor; None copies what was trained.

        Returns:
            SHA-256 of its bytes, hexadecimal.

        Raises:
            CheckpointError: what was trained cannot be read any more.
            OutputError: a value is not finite, or too large for the dtype.
            OSError: the disk failed.
        """
        if values is not None:
            assert values.shape == tensor.spec.shape, f"{tensor.spec.name}: {values.shape}"
            assert tensor.spec.dtype in TORCH_DTYPES, f"{tensor.spec.name} is not trained"
            return self._pieces(tensor, _rounded(tensor, values.detach().reshape(-1)))
        if tensor.spec.dtype is tensor.stored.spec.dtype:
            return self._pieces(tensor, self._copied(tensor))
        return self._pieces(tensor, self._converted(tensor))

    def _pieces(self, tensor: ExportedTensor, fill: Fill) -> str:
        digest, done, nbytes = hashlib.sha256(), 0, tensor.spec.nbytes
        memory = memoryview(self._memory)
        while done < nbytes:
            begin = (tensor.offset + done) % PAGE
            count = min(nbytes - done, len(memory) - begin)
            piece = memory[begin : begin + count]
            fill(done, piece)
            digest.update(piece)
            self._shards.write(tensor.shard, tensor.offset + done, piece)
            done += count
        return digest.hexdigest()

    def _copied(self, tensor: ExportedTensor) -> Fill:
        return lambda done, piece: self._reader.read_into(tensor.stored, done, piece)

    def _converted(self, tensor: ExportedTensor) -> Fill:
        """The stored values in another dtype."""
        stored = tensor.stored
        size, written = stored.spec.dtype.bits // 8, tensor.spec.dtype.bits // 8

        def fill(done: int, piece: memoryview) -> None:
            buffer = bytearray(len(piece) // written * size)
            self._reader.read_into(stored, done // written * size, memoryview(buffer))
            values = torch.frombuffer(buffer, dtype=TORCH_DTYPES[stored.spec.dtype])
            _round(tensor, values, piece)

        return fill


def _rounded(tensor: ExportedTensor, flat: Tensor) -> Fill:
    size = tensor.spec.dtype.bits // 8

    def fill(done: int, piece: memoryview) -> None:
        first = done // size
        _round(tensor, flat[first : first + len(piece) // size], piece)

    return fill


def _round(tensor: ExportedTensor, values: Tensor, piece: memoryview) -> None:
    """Round values to the tensor's dtype, nearest even.

    Raises:
        OutputError: one is not finite, or is not any more.
    """
    out = torch.frombuffer(piece, dtype=TORCH_DTYPES[tensor.spec.dtype])
    out.copy_(values)
    # To eight bits, torch rounds what is too large to the largest there is.
    too_large = out.itemsize == 1 and bool((values.abs() > torch.finfo(out.dtype).max).any())
    if _are_finite(out) and not too_large:
        return
    name = tensor.spec.name
    if not _are_finite(values):
        raise OutputError(
            f"'{name}' has values that are not finite",
            fix="go on from an earlier checkpoint of the run with a lower learning rate",
        )
    largest = float(values.abs().max())
    kind = str(out.dtype).removeprefix("torch.")
    raise OutputError(
        f"'{name}' reaches {largest:.6g}, which {kind} cannot hold",
        fix="output: dtype: bfloat16, or float32",
    )


def _are_finite(values: Tensor) -> bool:
    if values.itemsize == 1:  # torch does not look at these
        values = values.float()
    return bool(values.isfinite().all())
