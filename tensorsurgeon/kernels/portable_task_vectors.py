"""The arithmetic of task vectors in numpy: what it is, and what runs where nothing was compiled.

Spans are of the dtypes that the compiled arithmetic knows. All functions work a block at a time, so
that what lies in between stays in the processor's cache.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tensorsurgeon.kernels.portable import COLUMNS
from tensorsurgeon.kernels.scratch import Values, Words
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

BLOCK = 1 << 14
"""Elements that are worked on at a time: whole rows of COLUMNS."""

_HALF = np.uint32(16)
_LOWER = np.uint32(0xFFFF)
_MAGNITUDE = np.uint32(0x7FFFFFFF)

_HIGHEST_RANK = np.uint32(0x7F800001)
"""A NaN's, whatever its payload: one above infinity's."""

_NUMPY = {DType.F16: "<f2", DType.F32: "<f4", DType.F64: "<f8"}


def tally(base: Stored | None, model: Stored, prefix: int | None, counts: Counts) -> None:
    """Count ranks by one half of their words; see `task_vectors.tally`."""
    with np.errstate(all="ignore"):
        for start, stop in blocks(model.elements):
            values = _decode(model, start, stop)
            if base:
                values -= _decode(base, start, stop)
            ranks = _ranks(values)
            if prefix is not None:
                halves = ranks[ranks >> _HALF == prefix] & _LOWER
            else:
                halves = ranks >> _HALF
            counts += np.bincount(halves, minlength=HALVES)


def combine(
    base: Stored,
    parts: Sequence[Part],
    spans: Sequence[Stored],
    together: Together,
    out: Values,
) -> list[tuple[int, int]]:
    """Base plus task vectors; see `task_vectors.combine`. `spans` stand for those of the parts."""
    cuts = [part.cut for part in parts]
    with np.errstate(all="ignore"):
        for start, stop in blocks(base.elements):
            origin = _decode(base, start, stop)
            vectors, flaws = [], np.zeros_like(origin)
            for i, (part, span) in enumerate(zip(parts, spans, strict=True)):
                values = _decode(span, start, stop) - origin
                flaws += values * 0.0  # NaN where one is not finite, so that no cut hides it
                kept, cuts[i] = _kept(values, cuts[i], start)
                values *= part.scale
                values *= part.weight
                vectors.append(values if kept is None else np.where(kept, values, 0.0))
            weights = [part.weight for part in parts]
            update = _put_together(vectors, weights, together) + flaws
            # What is not updated stays as it is, minus zeros as well.
            out[start:stop] = np.where(update == 0.0, origin, origin + update)
    return [(cut.take, cut.skip) for cut in cuts]


def _put_together(
    vectors: Sequence[Values], weights: Sequence[float], together: Together
) -> Values:
    """The one task vector of several, which are weighted already."""
    sums = np.zeros_like(vectors[0])
    for vector in vectors:
        sums += vector
    divisor: Values | float = together.divisor or 1.0
    if together.elect:
        positive = sums >= 0
        sums, divisor = np.zeros_like(sums), np.zeros_like(sums)
        for vector, weight in zip(vectors, weights, strict=True):
            agrees = (positive & (vector > 0)) | (~positive & (vector < 0))
            sums += np.where(agrees, vector, 0.0)
            divisor += np.where(agrees, weight, 0.0)
        divisor[divisor == 0] = 1.0
    if not together.normalize:
        divisor = 1.0
    return sums / divisor * together.factor


def mass(base: Stored, model: Stored, cut: Cut) -> tuple[float, float, int, int]:
    """Sums of magnitudes; see `task_vectors.mass`."""
    every, held = _Sum(), _Sum()
    with np.errstate(all="ignore"):
        for start, stop in blocks(model.elements):
            values = _decode(model, start, stop) - _decode(base, start, stop)
            every.add(values)
            kept, cut = _kept(values, cut, start)
            held.add(values if kept is None else np.where(kept, values, 0.0))
        return every.total(), held.total(), cut.take, cut.skip


def row_limits(
    base: Stored, model: Stored, table: NDArray[np.uint32], out: NDArray[np.uint32]
) -> None:
    """The table's words by ranks in rows of as many elements; see `task_vectors.row_limits`."""
    columns = len(table)
    with np.errstate(all="ignore"):
        for start, stop in blocks(model.elements, max(1, BLOCK // columns) * columns):
            values = _decode(model, start, stop) - _decode(base, start, stop)
            order = np.argsort(_ranks(values).reshape(-1, columns), axis=1, kind="stable")
            np.put_along_axis(out[start:stop].reshape(-1, columns), order, table[None], axis=1)


def lost(base: Stored, values: Values, written: Stored) -> tuple[float, float]:
    """Sums of updates; see `task_vectors.lost`."""
    every, undone = _Sum(), _Sum()
    with np.errstate(all="ignore"):
        for start, stop in blocks(base.elements):
            origin = _decode(base, start, stop)
            update = values[start:stop] - origin
            every.add(update)
            undone.add(np.where(_decode(written, start, stop) == origin, update, 0.0))
        return every.total(), undone.total()


def blocks(elements: int, step: int = BLOCK) -> Iterator[tuple[int, int]]:
    """Where blocks of so many elements start and stop."""
    return ((start, min(start + step, elements)) for start in range(0, elements, step))


def _decode(span: Stored, start: int, stop: int) -> Values:
    """Elements [start, stop), as new float64 values."""
    if span.dtype is DType.BF16:
        words = span.raw.view("<u2")[start:stop].astype(np.uint32)
        words <<= _HALF
        return words.view(np.float32).astype(np.float64)
    return span.raw.view(_NUMPY[span.dtype])[start:stop].astype(np.float64)


def _ranks(values: Values) -> Words:
    words = values.astype(np.float32).view(np.uint32)
    words &= _MAGNITUDE
    np.maximum(words, values != 0, out=words)
    return np.minimum(words, _HIGHEST_RANK, out=words)


def _kept(values: Values, cut: Cut, start: int) -> tuple[NDArray[np.bool_] | None, Cut]:
    """Which of the elements from `start` on are kept, None for all, and the cut of the next."""
    if cut.words is not None:
        words = cut.words[start : start + len(values)]
        if cut.limits is None:
            return words < cut.below, cut
        return words < cut.limits[start : start + len(values)], cut
    if not cut.low and not cut.take and cut.high == ALL:
        return None, cut
    ranks = _ranks(values)
    kept = (ranks > cut.low) & (ranks <= cut.high)
    if not cut.take and not cut.skip:
        return kept, cut
    skipped = np.flatnonzero(ranks == cut.high)[: cut.skip]
    kept[skipped] = False
    at_low = ranks == cut.low
    at_low[skipped] = False
    taken = np.flatnonzero(at_low)[: cut.take]
    kept[taken] = True
    return kept, replace(cut, take=cut.take - len(taken), skip=cut.skip - len(skipped))


class _Sum:
    """Of magnitudes, taken in columns that are folded in halves at the end; see `portable.dot`."""

    def __init__(self) -> None:
        # The first row is what was summed so far: whole rows are added one after the other.
        self._rows = np.zeros((1 + BLOCK // COLUMNS, COLUMNS))

    def add(self, values: Values) -> None:
        """Go on with a block, which is a whole one unless it is the last."""
        rows, rest = divmod(len(values), COLUMNS)
        whole = values[: rows * COLUMNS].reshape(rows, COLUMNS)
        np.abs(whole, out=self._rows[1 : 1 + rows])
        sums = np.add.reduce(self._rows[: 1 + rows], axis=0)
        sums[:rest] += np.abs(values[rows * COLUMNS :])
        self._rows[0] = sums

    def total(self) -> float:
        """The sum of all."""
        sums = self._rows[0]
        while len(sums) > 1:
            half = len(sums) // 2
            sums = sums[:half] + sums[half:]
        return float(sums[0])
