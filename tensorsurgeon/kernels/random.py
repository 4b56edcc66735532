"""Random words that follow from a key and their place alone (Philox 4x64-10).

Compiled where this was built with a C compiler, else numpy's generator of that name, with the same
bits: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

import hashlib
import json
import os
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

PER_COUNTER = 8
"""Words of 32 bits that one value of the counter gives."""

_REVISION = 1
"""Of the compiled generator; see there."""

Key = tuple[int, int]
"""Two words of 64 bits."""


def _load() -> ModuleType | None:
    if os.environ.get("TENSORSURGEON_KERNELS") == "numpy":
        return None
    try:
        from tensorsurgeon.kernels import _random
    except ImportError:  # no compiler, or a system it was not built for
        return None
    return _random if getattr(_random, "REVISION", 0) == _REVISION else None


_COMPILED = _load()


def key_of(*parts: int | str) -> Key:
    """A key that is another for other parts: half of the SHA-256 of their JSON."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")


def fill_words(key: Key, start: int, out: NDArray[np.uint32]) -> None:
    """Fill with words [start, start + n) of a key's stream.

    Args:
        key: decides the stream.
        start: a multiple of PER_COUNTER.
        out: (n,) uint32.
    """
    counter, rest = divmod(start, PER_COUNTER)
    assert not rest
    if _COMPILED is not None:
        _COMPILED.words(*key, counter, out)
        return
    # The generator goes on by whole counters, so that a few words may be drawn for nothing.
    drawn = np.random.Philox(key=np.array(key, np.uint64), counter=counter).random_raw(
        -(-len(out) // 2)
    )
    out[:] = np.asarray(drawn, "<u8").view("<u4")[: len(out)]
