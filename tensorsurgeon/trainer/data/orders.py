"""Orders that depend on a key alone, and keeping the last few of them.

Randomness is counter based: Philox (Salmon et al. 2011), keyed by a digest of what it is for. An
order sorts its raw 64-bit words, since numpy promises that these stay the same in later versions,
but not what its generators make of them.
"""

import hashlib
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


def order(count: int, *key: str | int) -> NDArray[np.int64]:
    """The numbers below `count`, shuffled by a key.

    Returns:
        (count,) int64.
    """
    text = "\x00".join(str(part) for part in key)  # no name has a NUL
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    words = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(count)
    shuffled: NDArray[np.int64] = np.argsort(words, kind="stable").astype(np.int64, copy=False)
    return shuffled


class Recent(Generic[T]):
    """A function of a whole number that keeps its last two results; for any thread."""

    def __init__(self, make: Callable[[int], T]) -> None:
        self._make = make
        self._kept: tuple[tuple[int, T], ...] = ()

    def __call__(self, number: int) -> T:
        """The function's value, made if it is not kept."""
        for kept, value in self._kept:
            if kept == number:
                return value
        value = self._make(number)
        self._kept = (*self._kept[-1:], (number, value))  # replaced in one step: threads
        return value
