"""Copying tensors that do not change, without a number ever being looked at."""

import errno
import os
from collections.abc import Callable

from tensorsurgeon.checkpoint import ShardReader
from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.execute.output import OutputFolder
from tensorsurgeon.execute.staging import TensorWriter
from tensorsurgeon.specs import StoredTensor

KERNEL_CHUNK = 8 << 20
"""Bytes the kernel copies at a time, between which a run can be stopped."""

CHUNK = 1 << 20
"""Bytes read at a time where they go through a buffer."""

_CANNOT = {errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}
"""What a kernel or file system answers that cannot copy between two files by itself."""


class Copier:
    """Copies tensors for one thread.

    Past the page cache where the output can be written so; that is two to five times as fast as
    a copy inside the kernel, which goes through it. Else inside the kernel, and where that cannot
    either, through a buffer.

    Args:
        reader: has the sources' files open.
        output: where to.
        writer: this thread's buffer.
        step: told the number of bytes after each piece; may raise to stop the run.
    """

    def __init__(
        self,
        reader: ShardReader,
        output: OutputFolder,
        writer: TensorWriter,
        step: Callable[[int], None],
    ) -> None:
        self._reader = reader
        self._output = output
        self._writer = writer
        self._step = step

    def copy(self, tensor: StoredTensor, shard: str, offset: int) -> None:
        """Copy a tensor's bytes to an offset of a shard."""
        done = 0 if self._output.is_direct else self._copy_in_kernel(tensor, shard, offset)
        self._writer.start(shard, offset + done)
        while done < tensor.spec.nbytes:
            count = min(CHUNK, tensor.spec.nbytes - done)
            self._reader.read_into(tensor, done, self._writer.reserve(count))
            done += count
            self._step(count)
        self._writer.finish()

    def _copy_in_kernel(self, tensor: StoredTensor, shard: str, offset: int) -> int:
        """Copy as much as the kernel can by itself; returns how many bytes that was."""
        if not hasattr(os, "copy_file_range"):
            return 0
        source, target = self._reader.descriptor(tensor.path), self._output.descriptor(shard)
        done, total = 0, tensor.spec.nbytes
        while done < total:
            count = min(KERNEL_CHUNK, total - done)
            places = tensor.offset + done, offset + done
            try:
                copied = os.copy_file_range(source, target, count, *places)
            except OSError as error:
                if error.errno in _CANNOT:
                    return done
                raise
            if copied == 0:
                raise CheckpointError(
                    f"ended inside '{tensor.spec.name}': it was cut short while it was read",
                    where=str(tensor.path),
                )
            self._output.start_write_back(shard, places[1], copied)
            done += copied
            self._step(copied)
        return done
