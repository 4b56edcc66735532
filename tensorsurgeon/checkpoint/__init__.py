"""Reading checkpoints: folders, indexes, safetensors headers, and bytes at an offset."""

from tensorsurgeon.checkpoint.folder import SINGLE_NAME, Checkpoint, open_checkpoint
from tensorsurgeon.checkpoint.header import encode_header
from tensorsurgeon.checkpoint.index_file import INDEX_NAME
from tensorsurgeon.checkpoint.reading import ShardReader

__all__ = [
    "INDEX_NAME",
    "SINGLE_NAME",
    "Checkpoint",
    "ShardReader",
    "encode_header",
    "open_checkpoint",
]
