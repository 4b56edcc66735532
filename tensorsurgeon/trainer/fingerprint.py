"""What tells one checkpoint from another, wherever it lies, without reading all of it."""

import hashlib
import os
from pathlib import Path

from tensorsurgeon.checkpoint import Checkpoint, header_bytes
from tensorsurgeon.errors import CheckpointError, fix_for

_BLOCK = 4096
_BLOCKS = 256
"""How much of each shard is looked at: a megabyte, from all over it. Weights that were trained on
differ nearly everywhere."""


def fingerprint_of(checkpoint: Checkpoint) -> str:
    """A digest of a checkpoint's config and headers, and of samples of its weights.

    Raises:
        CheckpointError: it cannot be read any more.
    """
    digest = hashlib.sha256()
    try:
        digest.update((checkpoint.path / "config.json").read_bytes())
        for path in sorted({tensor.path for tensor in checkpoint.tensors.values()}):
            digest.update(path.name.encode() + header_bytes(path) + _samples(path))
    except OSError as error:
        what = f"cannot be read any more: {error.strerror}"
        raise CheckpointError(what, where=str(error.filename), fix=fix_for(error)) from None
    return digest.hexdigest()


def _samples(path: Path) -> bytes:
    """Blocks of a file at even distances."""
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        step = max(size // _BLOCKS, _BLOCK)
        return b"".join(os.pread(file.fileno(), _BLOCK, at) for at in range(0, size, step))
