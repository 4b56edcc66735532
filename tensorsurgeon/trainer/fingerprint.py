"""What tells one checkpoint, or one training, from another, without reading all of it."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorsurgeon.checkpoint import Checkpoint, header_bytes
from tensorsurgeon.errors import CheckpointError, fix_for
from tensorsurgeon.trainer.run_file import FREE

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


def training_digest(configuration: Mapping[str, Any]) -> str:
    """A digest of what of a training's configuration may not change when it goes on.

    Args:
        configuration: of JSON's own types; its `settings` are those of a run file.
    """
    bound = json.loads(json.dumps(configuration))
    for path in FREE:
        *outer, last = path.split(".")
        part = bound["settings"]
        for name in outer:
            part = part[name]
        del part[last]
    return hashlib.sha256(json.dumps(bound, sort_keys=True).encode()).hexdigest()
