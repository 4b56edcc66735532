"""Copying tensors that do not change: from file to file inside the kernel where it can."""

import errno
import os
from collections.abc import Callable

from tensorsurgeon.checkpoint import ShardReader
from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.execute.output import OutputFolder
from tensorsurgeon.specs import StoredTensor

CHUNK = 8 << 20
"""Bytes copied at a time, between which a run can be stopped."""

_FALLBACK_CHUNK = 1 << 20

_CANNOT = {errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}
"""What a kernel or file system answers that cannot copy between two files by itself."""


def copy_tensor(
    tensor: StoredTensor,
    reader: ShardReader,
    output: OutputFolder,
    place: tuple[str, int],
    step: Callable[[int], None],
) -> None:
    """Copy a tensor's bytes to their place in the output.

    Args:
        tensor: what to copy.
        reader: has its file open.
        output: where to.
        place: shard name and offset there.
        step: told the number of bytes after each chunk; may raise to stop.
    """
    shard, offset = place
    source, target = reader.descriptor(tensor.path), output.descriptor(shard)
    done, total = 0, tensor.spec.nbytes
    while done < total:
        want = min(CHUNK, total - done)
        try:
            got = _copy_range(source, target, want, tensor.offset + done, offset + done)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            _copy_through_buffer(tensor, reader, output, (shard, offset), done, step)
            return
        if got == 0:
            raise CheckpointError(
                f"ended inside '{tensor.spec.name}': it was cut short while it was read",
                where=str(tensor.path),
            )
        output.start_write_back(shard, offset + done, got)
        done += got
        step(got)


def _copy_range(source: int, target: int, count: int, source_at: int, target_at: int) -> int:
    if not hasattr(os, "copy_file_range"):
        raise OSError(errno.ENOSYS, "this system has no copy_file_range")
    return os.copy_file_range(source, target, count, source_at, target_at)


def _copy_through_buffer(
    tensor: StoredTensor,
    reader: ShardReader,
    output: OutputFolder,
    place: tuple[str, int],
    done: int,
    step: Callable[[int], None],
) -> None:
    shard, offset = place
    total = tensor.spec.nbytes
    buffer = memoryview(bytearray(min(_FALLBACK_CHUNK, total - done)))
    while done < total:
        chunk = buffer[: min(len(buffer), total - done)]
        reader.read_into(tensor, done, chunk)
        output.write(shard, offset + done, chunk)
        output.start_write_back(shard, offset + done, len(chunk))
        done += len(chunk)
        step(len(chunk))
