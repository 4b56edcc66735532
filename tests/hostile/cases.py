"""What a hostile file is, and short ways of writing one."""

import struct
from dataclasses import dataclass
from typing import Any

from tests.cli.checkpoints import shard_bytes


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """A file, how the error about it goes on after the file's name, and why others may take it.

    Attributes:
        content: the file's bytes.
        problem: the tensor, the rule and the offset.
        taken: where the safetensors library accepts the file, why we do not.
    """

    content: bytes
    problem: str
    taken: str = ""


SPEC = "the format's text forbids it; the library does not look"
MEMORY = "no honest file is so large, and reading it would take seconds and gigabytes"
LAST_WINS = "the library keeps the last of them, so that two readers could see two models"


def framed(length: int, rest: bytes = b"{}") -> bytes:
    """A file whose header claims a length."""
    return struct.pack("<Q", length) + rest


def text(header: str | bytes, data: bytes = b"a") -> bytes:
    """A file with this header, letter by letter."""
    return shard_bytes(header.encode() if isinstance(header, str) else header, data)


def tensor(
    shape: str = "[1]", offsets: str = "[0, 1]", dtype: str = '"U8"', data: bytes = b"a"
) -> bytes:
    """A file with the one tensor 'a', whose fields are given as JSON."""
    fields = f'"dtype": {dtype}, "shape": {shape}, "data_offsets": {offsets}'
    return text(f'{{"a": {{{fields}}}}}', data)


def two(first: dict[str, Any], second: dict[str, Any], data: bytes) -> bytes:
    """A file with the tensors 'a' and 'b'."""
    return shard_bytes({"a": first, "b": second}, data)


A = '"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}'
HERE = "(entry at byte 14)"
NOT_WHOLE_SHAPE = f"tensor 'a': the shape is not a list of whole numbers {HERE}"
NOT_WHOLE_OFFSETS = f"tensor 'a': data_offsets are not two whole numbers {HERE}"
