"""Task vectors on spans: ranks counted, elements pruned, signs elected, all of it put together.

A task vector's element is model minus base, in float64; its rank is its magnitude rounded to
float32, as a word of 31 bits: floats without a sign are ordered as their bits are. Nothing but 0
has rank 0, and a NaN has the highest. Compiled where this was built with a C compiler, else in
numpy, with the same bits.
"""

import os
from collections.abc import Sequence
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from tensorsurgeon.kernels import portable, portable_rounding, portable_task_vectors
from tensorsurgeon.kernels.scratch import Raw, Scratch, Values
from tensorsurgeon.kernels.task_vector_terms import (
    ALL,
    HALVES,
    Counts,
    Cut,
    Part,
    Stored,
    Together,
)
from tensorsurgeon.specs import DType

__all__ = [
    "ALL",
    "HALVES",
    "Counts",
    "Cut",
    "Part",
    "Stored",
    "Together",
    "combine",
    "lost",
    "mass",
    "row_limits",
    "stochastic",
    "tally",
]

_REVISION = 3
"""Of the compiled arithmetic; see there."""


def _load() -> ModuleType | None:
    if os.environ.get("TENSORSURGEON_KERNELS") == "numpy":
        return None
    try:
        from tensorsurgeon.kernels import _task_vectors
    except ImportError:  # no compiler, or a system it was not built for
        return None
    # What an earlier version was built to may still lie beside this one.
    return _task_vectors if getattr(_task_vectors, "REVISION", 0) == _REVISION else None


_COMPILED = _load()

_CODES = {DType.BF16: 0, DType.F16: 1, DType.F32: 2, DType.F64: 3}
"""What the compiled arithmetic calls the dtypes it knows."""


def tally(base: Stored | None, model: Stored, prefix: int | None, counts: Counts) -> None:
    """Count ranks by one half of their words; two such passes find any threshold exactly.

    Args:
        base: what the task vector starts from; None where the model is one itself.
        model: as many elements.
        prefix: None counts all ranks by their upper 16 bits; else those whose upper 16 bits these
            are, by their lower 16.
        counts: added to.
    """
    model = _widened(model)
    base = _widened(base) if base else None
    if _COMPILED is None:
        portable_task_vectors.tally(base, model, prefix, counts)
        return
    origin = _passed(base) if base else (b"", 0)
    _COMPILED.tally(*origin, *_passed(model), -1 if prefix is None else prefix, counts)


def combine(
    base: Stored, parts: Sequence[Part], together: Together, out: Values
) -> list[tuple[int, int]]:
    """Set a span to the base plus task vectors that are pruned, weighted and put together.

    An element of a part is its difference times `scale` times `weight`, each product rounded to
    float64, or 0 where it is cut off; parts are summed in their order. Where the sum is 0 the base
    stays as it is; where a difference is not finite, cut off or not, the result is NaN.

    Args:
        base: what the task vectors start from.
        parts: one or more, of as many elements.
        together: how they become one.
        out: (n,) float64, set.

    Returns:
        For each part what is left to take and to skip, for the cut of the tensor's next span.
    """
    base = _widened(base)
    spans = [_widened(part.span) for part in parts]
    if _COMPILED is None:
        return portable_task_vectors.combine(base, parts, spans, together, out)
    given = tuple(
        (*_passed(span), part.weight, part.scale, _cut_passed(part.cut))
        for span, part in zip(spans, parts, strict=True)
    )
    left: list[tuple[int, int]] = _COMPILED.combine(
        *_passed(base),
        given,
        together.elect,
        together.normalize,
        together.divisor,
        together.factor,
        out,
    )
    return left


def mass(base: Stored, model: Stored, cut: Cut) -> tuple[float, float, int, int]:
    """Sums of a task vector's magnitudes, in an order that depends on its length alone.

    Args:
        base: what the task vector starts from.
        model: as many elements.
        cut: what is kept.

    Returns:
        Of all elements; of those kept; what is left to take; what is left to skip.
    """
    base, model = _widened(base), _widened(model)
    if _COMPILED is None:
        return portable_task_vectors.mass(base, model, cut)
    found: tuple[float, float, int, int] = _COMPILED.mass(
        *_passed(base), *_passed(model), _cut_passed(cut)
    )
    return found


def row_limits(
    base: Stored,
    model: Stored,
    columns: int,
    lowest: float,
    rise: float,
    out: NDArray[np.uint32],
) -> None:
    """Limits of random words under which elements are kept, by their ranks in their rows.

    A row's elements are numbered from its smallest magnitude to its largest, ties by position; the
    probabilities go in equal steps from `lowest` to `lowest + rise`. A row of one element has the
    one in between.

    Args:
        base: what the task vector starts from; whole rows.
        model: as many elements.
        columns: elements of a row.
        lowest: the probability of a row's smallest magnitude.
        rise: how much higher that of its largest is.
        out: (n,) uint32, set to floor(probability * 2^32), at most 2^32 - 1.
    """
    base, model = _widened(base), _widened(model)
    if columns == 1:
        chances = np.array([lowest + rise / 2])
    else:
        chances = lowest + rise * np.arange(columns) / (columns - 1)
    table = np.clip(np.floor(chances * 2.0**32), 0, 2**32 - 1).astype(np.uint32)
    if _COMPILED is None:
        portable_task_vectors.row_limits(base, model, table, out)
    else:
        _COMPILED.row_limits(*_passed(base), *_passed(model), table, out)


def lost(base: Stored, values: Values, written: Stored) -> tuple[float, float]:
    """How much of an update rounding undid, summed as `mass` sums.

    Args:
        base: what was updated.
        values: (n,) what it should become.
        written: `values`, rounded to what is stored.

    Returns:
        Sums of |values - base|: of all elements; of those where what was written is the base.
    """
    base, written = _widened(base), _widened(written)
    if _COMPILED is None:
        return portable_task_vectors.lost(base, values, written)
    found: tuple[float, float] = _COMPILED.lost(*_passed(base), values, *_passed(written))
    return found


def stochastic(values: Values, dtype: DType, words: NDArray[np.uint32], raw: Raw) -> int:
    """Stored bytes of values, rounded so that on average they are what they were.

    A value between two neighbours of the dtype becomes the one of larger magnitude if and only if
    its word is smaller than floor(f * 2^32), where f is the fraction of the gap that it lies above
    the other. What the dtype holds exactly never changes. Beyond the dtype's largest finite value
    the neighbour would be infinity, which no average survives: there, and there alone, words count
    for nothing and rounding is to nearest, as in `encode`; to float64 nothing is rounded.

    Args:
        values: (n,) float64.
        dtype: what to store.
        words: (n,) uint32, random.
        raw: (n * itemsize,) bytes, filled.

    Returns:
        How many finite values became infinite or NaN; as many as with `encode`.
    """
    if _COMPILED is not None and dtype in _CODES and dtype is not DType.F64:
        infinite: int = _COMPILED.stochastic(values, _CODES[dtype], words, raw)
        return infinite
    return portable_rounding.stochastic(values, dtype, words, raw)


def _widened(span: Stored) -> Stored:
    """The span, as float64 where the dtype is none that the arithmetic knows."""
    if span.dtype in _CODES:
        return span
    values = np.empty(span.elements)
    portable.scale(span.raw, span.dtype, 1.0, values, add=False, scratch=Scratch(0))
    return Stored(values.view(np.uint8), DType.F64)


def _passed(span: Stored) -> tuple[Raw, int]:
    return span.raw, _CODES[span.dtype]


def _cut_passed(cut: Cut) -> tuple[object, ...]:
    return cut.low, cut.take, cut.high, cut.skip, cut.words, cut.below, cut.limits
