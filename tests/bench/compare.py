"""Compare two bf16 checkpoints on the bytes of their safetensors, in a process of its own.

`python -m tests.bench.compare LEFT RIGHT` prints an `Agreement` as JSON. Memory is a few blocks,
whatever the checkpoints' size.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.bench.results import Agreement

BLOCK = 2**22


@dataclass(frozen=True, kw_only=True)
class Location:
    """Where a tensor's bytes are."""

    path: Path
    offset: int
    elements: int
    shape: tuple[int, ...]

    def blocks(self) -> Iterator[NDArray[np.uint16]]:
        """The tensor's bits, block by block."""
        for start in range(0, self.elements, BLOCK):
            count = min(BLOCK, self.elements - start)
            yield np.fromfile(self.path, np.uint16, count, offset=self.offset + 2 * start)


def count(agreement: Agreement, left: NDArray[np.uint16], right: NDArray[np.uint16]) -> None:
    """Add one pair of blocks to the account."""
    agreement.elements += left.size
    if np.array_equal(left, right):
        return
    distance = np.abs(_ordered(left) - _ordered(right))
    # The two zeros are no ulp apart, and yet not the same bits.
    agreement.differing += int(np.count_nonzero(left != right))
    agreement.beyond_one_ulp += int(np.count_nonzero(distance > 1))
    agreement.max_ulp = max(agreement.max_ulp, int(distance.max()))


def _ordered(bits: NDArray[np.uint16]) -> NDArray[np.int32]:
    """Integers in the order of the numbers, neighbours one apart."""
    magnitude = (bits & 0x7FFF).astype(np.int32)
    return np.where(bits & 0x8000, -magnitude, magnitude)


def locate(folder: Path) -> dict[str, Location]:
    """All tensors of a checkpoint folder by name."""
    return {
        name: location
        for path in sorted(folder.glob("*.safetensors"))
        for name, location in _locate_in(path).items()
    }


def _locate_in(path: Path) -> dict[str, Location]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    if others := {entry["dtype"] for entry in header.values()} - {"BF16"}:
        raise SystemExit(f"{path}: only BF16 can be compared, found {', '.join(sorted(others))}")
    return {
        name: Location(
            path=path,
            offset=8 + length + entry["data_offsets"][0],
            elements=prod(entry["shape"]),
            shape=tuple(entry["shape"]),
        )
        for name, entry in header.items()
    }


def compare(left: Path, right: Path) -> Agreement:
    """Compare every tensor of two folders.

    Raises:
        SystemExit: they do not hold the same names and shapes.
    """
    lefts, rights = locate(left), locate(right)
    if lefts.keys() != rights.keys():
        odd = sorted(lefts.keys() ^ rights.keys())
        raise SystemExit(f"{left} and {right}: {len(odd)} tensors in one alone, first {odd[0]}")
    agreement = Agreement(tensors=len(lefts))
    for name, location in lefts.items():
        if location.shape != rights[name].shape:
            raise SystemExit(f"{name}: {location.shape} in {left}, {rights[name].shape} in {right}")
        for pair in zip(location.blocks(), rights[name].blocks(), strict=True):
            count(agreement, *pair)
    return agreement


if __name__ == "__main__":
    print(json.dumps(asdict(compare(Path(sys.argv[1]), Path(sys.argv[2])))))
