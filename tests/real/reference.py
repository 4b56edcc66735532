"""Linear and SLERP once more, in float64, from their definitions: what the engine is held to.

Nothing of the engine is used here; files are read with the safetensors library.
"""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, int16

Float64 = NDArray[np.float64]
Bits = NDArray[np.uint16]
"""bfloat16 values as their bit patterns: numpy has no such type of its own."""

EXPONENT = np.uint64(0x7FF0_0000_0000_0000)
"""Where a float64 keeps its exponent."""


def linear(tensors: Sequence[Float64], weights: Sequence[float]) -> Float64:
    """The average of tensors of one shape; weights of any sum but zero."""
    total = np.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        total += weight * tensor
    return total / sum(weights)


def slerp(a: Float64, b: Float64, t: float) -> Float64:
    """The point at `t` on the arc from `a` to `b`, each one vector (Shoemake 1985).

    The angle is Kahan's: exact for vectors that are nearly parallel, where arccos is not.
    """
    u, v = a / np.linalg.norm(a), b / np.linalg.norm(b)
    angle = 2 * np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v))
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def over_depth(values: Sequence[float], name: str, depth: int) -> float:
    """A list spread evenly over the layers, for the tensor `name` of a Llama model.

    The embeddings come before the layers and take the first value; the norm after them, the last.
    """
    place = name.split(".")
    layer = int(place[2]) if place[1] == "layers" else 0 if place[1] == "embed_tokens" else depth
    return float(np.interp(layer, np.linspace(0, depth - 1, len(values)), values))


def to_bfloat16(values: Float64) -> Bits:
    """Rounds to the nearest bfloat16, ties to even, once: never through float32.

    bfloat16 has 8 significant bits down to 2^-126, and multiples of 2^-133 below that. Divided
    by the unit in its last place a value is exact still, and an integer once rounded.
    """
    power = (values.view(np.uint64) & EXPONENT).view(np.float64)  # of 2, the largest within
    ulp = np.maximum(power, 2.0**-126) * 2.0**-7
    with np.errstate(over="ignore"):
        rounded = (np.rint(values / ulp) * ulp).astype(np.float32)  # exact, or infinite
    return (rounded.view(np.uint32) >> 16).astype(np.uint16)


def ulps_apart(a: Bits, b: Bits) -> NDArray[np.int32]:
    """How many bfloat16 values lie between each pair; zero and minus zero are the same one."""

    def ordered(bits: Bits) -> NDArray[np.int32]:
        magnitude = (bits & 0x7FFF).astype(np.int32)
        return np.where(bits & 0x8000, -magnitude, magnitude)

    return np.abs(ordered(a) - ordered(b))


def from_bfloat16(bits: Bits) -> Float64:
    """The values of bit patterns, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def count_off(
    computed: Bits, exact: Float64, inputs: Sequence[Float64], precision: float = 2**-51
) -> int:
    """How many elements are not `exact` rounded once, though none is off by more than one ulp.

    An exception is made where the inputs cancel, and little or nothing of them is left: there an
    error of `precision` times the inputs may be many ulps of the result. It is float64's.

    Raises:
        AssertionError: an element is further off.
    """
    apart = ulps_apart(computed, to_bfloat16(exact))
    far = apart > 1
    error = np.abs(from_bfloat16(computed[far]) - exact[far])
    assert np.all(error <= precision * sum(np.abs(tensor[far]) for tensor in inputs))
    return np.count_nonzero(apart)


def sum_over(names: Iterable[str], count: Callable[[str], int]) -> int:
    """The sum of a count over tensors, on all processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sum(pool.map(count, names))


class Weights:
    """The tensors of a checkpoint that is one file, read when asked for."""

    def __init__(self, folder: Path) -> None:
        self._file = safe_open(folder / "model.safetensors", framework="pt")
        self.names: list[str] = sorted(self._file.keys())

    def tensor(self, name: str) -> Tensor:
        """A bfloat16 tensor."""
        return self._file.get_tensor(name)

    @property
    def elements(self) -> int:
        """The number of elements in all tensors."""
        return sum(math.prod(self._file.get_slice(name).get_shape()) for name in self.names)

    def bits(self, name: str) -> Bits:
        """The same values as 16-bit patterns."""
        return self.tensor(name).view(int16).numpy().view(np.uint16)

    def float64(self, name: str) -> Float64:
        """The same values, exactly."""
        return self.tensor(name).double().numpy()
