"""Fill checkpoints with random bf16 weights, in a process of its own.

The benchmark's parent stays small by never importing numpy: a child starts with its parent's
peak memory on its account. Run as `python -m tests.bench.weights SCALE FOLDER NAME...`.
"""

import sys
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from tests.bench import models
from tests.bench.shapes import SCALES

BLOCK = 2**22
SIGN_BIT = np.uint16(0x8000)
STANDARD_DEVIATION = 0.02

# How far each model lies from the base, in standard deviations of its weights.
DISTANCES = {"base": 0.0, "a": 0.05, "b": 0.1} | dict.fromkeys("cdefgh", 0.1)


class Tape:
    """An endless supply of normal weights, cut at random places from one block.

    Drawing a billion normals would take longer than the merges themselves. All models cut at
    the same places of their own blocks, so near-by blocks give near-by models.
    """

    def __init__(self, name: str) -> None:
        base = _normals(seed=0)
        noise = _normals(seed=1 + list(DISTANCES).index(name))
        weights = STANDARD_DEVIATION * (base + np.float32(DISTANCES[name]) * noise)
        block: NDArray[np.uint16] = weights.astype(ml_dtypes.bfloat16).view(np.uint16)
        # One period is the block and its negative; the third copy lets a cut start anywhere.
        self._tape = np.concatenate([block, block ^ SIGN_BIT, block])
        self._places = np.random.default_rng(seed=0)

    def fill(self, file: BinaryIO, elements: int) -> None:
        """Write the next tensor."""
        for done in range(0, elements, BLOCK):
            start = int(self._places.integers(2 * BLOCK))
            count = min(BLOCK, elements - done)
            file.write(self._tape[start : start + count].data)


def _normals(*, seed: int) -> NDArray[Any]:
    """(BLOCK,) float32 standard normals."""
    return np.random.default_rng(seed).standard_normal(BLOCK, dtype=np.float32)


def main(scale: str, folder: str, *names: str) -> None:
    """Build each named model below the folder."""
    for name in names:
        print(f"building {name} of {scale}", file=sys.stderr)
        models.write(SCALES[scale], Path(folder) / name, Tape(name).fill)


if __name__ == "__main__":
    main(*sys.argv[1:])
