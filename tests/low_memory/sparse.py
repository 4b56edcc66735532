"""Checkpoints that take little room on disk: a page of weights in every MiB, holes in between.

The weights keep the arithmetic honest: of zeros alone SLERP would make a linear merge. They are
drawn from the standard library, so that building a model takes next to no memory.
"""

import os
import random
from pathlib import Path
from typing import BinaryIO

from tests.bench import models
from tests.bench.shapes import BF16_BYTES, Shape

PAGE = 4096
STRIDE = 2**20

# High bytes of bf16 numbers from 2^-7 to 2^-5 in magnitude, whatever the low byte.
HIGH_BYTES = (0x3C, 0xBC)


class Islands:
    """Writes a page of weights at the beginning of every MiB of a tensor."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        low = draw.randbytes(STRIDE // BF16_BYTES)
        high = bytes(draw.choices(HIGH_BYTES, k=len(low)))
        self._weights = bytes(byte for pair in zip(low, high, strict=True) for byte in pair)
        self._draw = draw

    def fill(self, file: BinaryIO, elements: int) -> None:
        """Write the next tensor."""
        begin = file.tell()
        size = elements * BF16_BYTES
        for at in range(0, size, STRIDE):
            file.seek(begin + at)
            # Cut at random places of one block, so that no two pages are alike.
            cut = BF16_BYTES * self._draw.randrange((STRIDE - PAGE) // BF16_BYTES)
            file.write(self._weights[cut : cut + min(PAGE, size - at)])
        file.truncate(begin + size)
        file.seek(0, os.SEEK_END)


def build(shape: Shape, folder: Path, *, seed: int) -> None:
    """Write a model of this shape, unless it is there."""
    if not models.is_complete(shape, folder):
        models.write(shape, folder, Islands(seed).fill)
