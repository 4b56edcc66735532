"""Synthetic checkpoints on disk: shard layout, safetensors headers, sparse stand-ins.

Headers are laid out by hand, so that a checkpoint is streamed to disk whatever its size, and so
that the engine's own writer has no part in the files it is measured on.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from tests.bench.shapes import BF16_BYTES, Shape

SHARDS = 3

# Writes the given number of elements where the file stands.
Fill = Callable[[BinaryIO, int], None]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One safetensors file: its name and its tensors in the order of their bytes."""

    name: str
    tensors: dict[str, tuple[int, ...]]

    @property
    def header(self) -> bytes:
        """Length and JSON header, padded so that the data starts at a multiple of 8."""
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name, shape in self.tensors.items():
            end = offset + prod(shape) * BF16_BYTES
            entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    @property
    def elements(self) -> int:
        """Elements of all tensors of this file."""
        return sum(prod(shape) for shape in self.tensors.values())

    @property
    def file_size(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + self.elements * BF16_BYTES


def lay_out(shape: Shape) -> list[Shard]:
    """Deal the tensors, in order, to shards of about equal size."""
    dealt: list[dict[str, tuple[int, ...]]] = [{} for _ in range(SHARDS)]
    share = shape.parameters / SHARDS
    done = 0
    for name, dims in shape.tensors().items():
        elements = prod(dims)
        # A tensor goes where its middle falls, so that a large one does not overfill a shard.
        dealt[min(SHARDS - 1, int((done + elements / 2) / share))][name] = dims
        done += elements
    filled = [tensors for tensors in dealt if tensors]
    return [
        Shard(name=f"model-{number:05}-of-{len(filled):05}.safetensors", tensors=tensors)
        for number, tensors in enumerate(filled, start=1)
    ]


def is_complete(shape: Shape, folder: Path) -> bool:
    """Whether the folder holds a finished checkpoint of this very shape."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        sizes = [(folder / shard.name).stat().st_size for shard in lay_out(shape)]
    except (OSError, ValueError):
        return False
    return config == shape.config() and sizes == [shard.file_size for shard in lay_out(shape)]


def write(shape: Shape, folder: Path, fill: Fill) -> None:
    """Write a whole checkpoint; a folder that bears its name is always finished.

    Args:
        shape: what to write.
        folder: replaced if it exists.
        fill: called once for each tensor, in order.
    """
    partial = folder.with_name(f"{folder.name}.part")
    for old in (partial, folder):
        shutil.rmtree(old, ignore_errors=True)
    partial.mkdir(parents=True)
    shards = lay_out(shape)
    for shard in shards:
        with (partial / shard.name).open("wb") as file:
            file.write(shard.header)
            for dims in shard.tensors.values():
                fill(file, prod(dims))
    index = {
        "metadata": {"total_parameters": shape.parameters, "total_size": shape.size},
        "weight_map": {name: shard.name for shard in shards for name in shard.tensors},
    }
    _write_json(partial / "model.safetensors.index.json", index)
    _write_json(partial / "config.json", shape.config())
    _write_json(partial / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    partial.rename(folder)


def leave_hole(file: BinaryIO, elements: int) -> None:
    """Fill a tensor with zeros that take no room on disk."""
    end = file.seek(elements * BF16_BYTES, os.SEEK_CUR)
    file.truncate(end)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
