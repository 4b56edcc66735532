"""Reading checkpoints: folders, indexes, safetensors headers, and bytes at an offset."""

from tensorsurgeon.checkpoint.folder import Checkpoint, open_checkpoint
from tensorsurgeon.checkpoint.header import encode_header
from tensorsurgeon.checkpoint.reading import ShardReader

__all__ = ["Checkpoint", "ShardReader", "encode_header", "open_checkpoint"]
