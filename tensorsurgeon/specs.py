"""What a tensor is and where its bytes lie: the values every other module speaks in."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

SPAN = 1 << 18
"""Elements in a span, the unit of reading, arithmetic and reduction.

It is fixed, whatever the threads and the memory budget, so that sums over a tensor are always
taken in the same order and the same recipe gives the same bytes everywhere. 2^18 float64 values
are 2 MiB: small enough for a processor's cache, large enough that calls cost nothing.
"""


PAGE = 4096
"""What direct writes are aligned to, in bytes: the largest block of any usual disk."""

STAGING = 4 << 20
"""Bytes of a tensor that a thread gathers for one write."""

Progress = Callable[[int, int], None]
"""Called a few times a second with bytes done and bytes in all."""


class DType(Enum):
    """The dtypes of the safetensors format, by their names there; `bits` is an element's size."""

    bits: int

    BOOL = "BOOL", 8
    F4 = "F4", 4
    F6_E2M3 = "F6_E2M3", 6
    F6_E3M2 = "F6_E3M2", 6
    U8 = "U8", 8
    I8 = "I8", 8
    F8_E5M2 = "F8_E5M2", 8
    F8_E4M3 = "F8_E4M3", 8
    F8_E8M0 = "F8_E8M0", 8
    F8_E4M3FNUZ = "F8_E4M3FNUZ", 8
    F8_E5M2FNUZ = "F8_E5M2FNUZ", 8
    I16 = "I16", 16
    U16 = "U16", 16
    F16 = "F16", 16
    BF16 = "BF16", 16
    I32 = "I32", 32
    U32 = "U32", 32
    F32 = "F32", 32
    C64 = "C64", 64
    F64 = "F64", 64
    I64 = "I64", 64
    U64 = "U64", 64

    def __new__(cls, name: str, bits: int) -> "DType":
        """A member whose value is its name."""
        member = object.__new__(cls)
        member._value_ = name
        member.bits = bits
        return member

    @property
    def computable(self) -> bool:
        """Whether methods can do arithmetic on it; every other dtype is only ever copied."""
        return self in _COMPUTABLE


_COMPUTABLE = frozenset({DType.F64, DType.F32, DType.F16, DType.BF16, DType.F8_E4M3, DType.F8_E5M2})

TORCH_NAMES = {
    "float64": DType.F64,
    "float32": DType.F32,
    "float16": DType.F16,
    "bfloat16": DType.BF16,
    "float8_e4m3fn": DType.F8_E4M3,
    "float8_e5m2": DType.F8_E5M2,
}
"""The dtypes a config or a recipe can name, by torch's names for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """A tensor's name, dtype and shape."""

    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.elements * self.dtype.bits // 8


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """A tensor in a file: `spec.nbytes` bytes of `path` from `offset` on."""

    spec: TensorSpec
    path: Path
    offset: int


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class SourceLayer:
    """One layer of one source: its name in the recipe and the layer's index."""

    source: str
    layer: int

    def __str__(self) -> str:
        return f"{self.source}[{self.layer}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerOrigin:
    """Where one output layer came from: an entry of the layer map.

    Attributes:
        sources: the source layers that were merged; one where it was copied.
        new: whether it is an added layer whose output was zeroed, so that it starts as identity.
    """

    sources: tuple[SourceLayer, ...]
    new: bool = False

    def follows(self, before: "LayerOrigin") -> bool:
        """Whether every source layer comes right after its counterpart in `before`."""
        return len(self.sources) == len(before.sources) and all(
            here.source == there.source and here.layer == there.layer + 1
            for here, there in zip(self.sources, before.sources, strict=True)
        )

    def __str__(self) -> str:
        inside = " + ".join(map(str, self.sources))
        return f"{inside} (new, zeroed)" if self.new else inside


def size_text(nbytes: int) -> str:
    """A number of bytes for people, in decimal units: `2.2 GB`."""
    size = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


_REPO = re.compile(r"(hf://)?[\w.-]+/[\w.-]+(@[^\s@]+)?", re.ASCII)


def parse_repo(text: str) -> str:
    """A repository's name with a branch or without, as it is.

    Raises:
        ValueError: it is none.
    """
    if "://" in text.removeprefix("hf://"):
        raise ValueError(f"'{text}' is an address; write org/name alone")
    if not _REPO.fullmatch(text):
        raise ValueError(f"'{text}' is no repository; write it as org/name, or org/name@branch")
    return text


_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{letter}B": 1000 ** (i + 1) for i, letter in enumerate("KMGT")}
_UNITS |= {f"{letter}IB": 1024 ** (i + 1) for i, letter in enumerate("KMGT")}


def parse_size(text: str | int) -> int:
    """Bytes from `5GB`, `512 MB`, `1.5GiB` or a plain number; GB is 10^9, GiB is 2^30.

    Raises:
        ValueError: not a size, or not a positive one.
    """
    compact = str(text).replace(" ", "").upper()
    number = compact.rstrip("BKMGTI")
    unit = compact[len(number) :]
    try:
        nbytes = int(float(number) * _UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        raise ValueError(f"'{text}' is not a size; write it as 512MB or 5GB") from None
    if nbytes <= 0:
        raise ValueError(f"a size must be positive, not '{text}'")
    return nbytes
