"""What is kept of a task vector: by the rank of its elements, by chance, or by both."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from tensorsurgeon.operators.ranking import bin_of
from tensorsurgeon.operators.streaming import (
    EachTensor,
    Inputs,
    columns_of,
    rows_at_a_time,
    spans_of,
)

if TYPE_CHECKING:
    from tensorsurgeon.kernels.task_vectors import Counts, Cut

T = TypeVar("T")

Outlying = tuple[int, int]
"""How many of a model's largest elements are left out, and how many of those below are kept."""

Thresholds = tuple[int, int, int, int]
"""The arguments of `ByRank`."""

Half = tuple[int, int | None]
"""A model, and the upper half of ranks; None for any."""

_HALF = 16
"""Bits of each half of a rank."""

_ALL = 0xFFFFFFFF
"""A rank above all others."""


class Pruning(Protocol):
    """What is kept of one model's task vector, asked for in order from the first element on."""

    def at(self, span: range) -> "Cut":
        """What is kept of the elements with these flat indices, which the inputs hold."""

    def passed(self, take: int, skip: int) -> None:
        """Told what the span has left to take and to skip."""


class ByRank:
    """Keeps exactly so many elements, of those at a threshold the ones with the lowest indices.

    By default it keeps all of them, save zeros.

    Args:
        low: rank above which elements are kept.
        take: how many are kept of those at `low`.
        high: rank above which elements are left out.
        skip: how many are left out of those at `high`.
    """

    def __init__(self, low: int = 0, take: int = 0, high: int = _ALL, skip: int = 0) -> None:
        self._all = (low, take, high, skip)
        self._take, self._skip = take, skip

    def at(self, span: range) -> "Cut":
        """The thresholds, with what is still to take and to skip."""
        from tensorsurgeon.kernels.task_vectors import Cut

        low, take, high, skip = self._all
        if span.start == 0:
            self._take, self._skip = take, skip
        return Cut(low=low, take=self._take, high=high, skip=self._skip)

    def passed(self, take: int, skip: int) -> None:
        """Go on with what is left."""
        self._take, self._skip = take, skip


class AtRandom:
    """Keeps each element with the same probability.

    Args:
        inputs: gives the random words.
        index: of the model among them.
        density: the probability.
    """

    def __init__(self, inputs: Inputs, index: int, density: float) -> None:
        self._inputs = inputs
        self._index = index
        self._below = int(density * 2**32)

    def at(self, span: range) -> "Cut":
        """Random words, and below which an element is kept."""
        from tensorsurgeon.kernels.task_vectors import Cut

        words = self._inputs.words(self._index, span.start, span.stop)
        return Cut(words=words, below=self._below)

    def passed(self, take: int, skip: int) -> None:
        """Nothing is left."""


class ByRowRank:
    """Keeps each element with a probability that rises with its rank in its row.

    Args:
        inputs: gives the random words.
        index: of the model among them.
        lowest: probability of a row's smallest magnitude.
        rise: how much higher it is for the largest.
    """

    def __init__(self, inputs: Inputs, index: int, lowest: float, rise: float) -> None:
        import numpy as np

        self._inputs = inputs
        self._index = index
        self._lowest, self._rise = lowest, rise
        longest = min(rows_at_a_time(inputs.shape), inputs.elements)
        self._limits = np.empty(longest, np.uint32)

    def at(self, span: range) -> "Cut":
        """Random words, and below which limits elements are kept; spans are whole rows."""
        from tensorsurgeon.kernels.task_vectors import Cut, row_limits

        limits = self._limits[: len(span)]
        columns = columns_of(self._inputs.shape)
        base, model = self._inputs.held(0), self._inputs.held(self._index)
        row_limits(base, model, columns, self._lowest, self._rise, limits)
        words = self._inputs.words(self._index, span.start, span.stop)
        return Cut(words=words, limits=limits)

    def passed(self, take: int, skip: int) -> None:
        """Nothing is left."""


def by_rank(inputs: Inputs, kept: Sequence[Outlying | None]) -> list[Pruning]:
    """Prunings that keep elements by their rank: two counting passes for all models together.

    Args:
        inputs: the base, then the models.
        kept: for each model how many of the largest magnitudes are left out, and how many of those
            below them are kept; None for all.
    """

    def each(of: Callable[[Inputs], T], fold: Callable[[int, T], None]) -> None:
        fold(0, of(inputs))

    return [ByRank(*found) for found in _thresholds(each, kept)]


def by_rank_over_model(
    each: EachTensor, kept: Sequence[Outlying | None], tensors: int
) -> list[tuple[Thresholds, ...]]:
    """What `ByRank` keeps of every tensor, by ranks among all of them: three counting passes.

    Args:
        each: runs a function on the inputs of every tensor.
        kept: as for `by_rank`, of all tensors together.
        tensors: how many there are; of equal ranks those of the first ones come first.
    """
    found = _thresholds(each, kept)
    wanted = {
        i: {rank for rank in (low, high) if rank != _ALL}
        for i, (low, _, high, _) in enumerate(found)
        if kept[i] is not None
    }
    equal: list[dict[tuple[int, int], int]] = [{}] * tensors
    each(lambda inputs: _counted_at(inputs, wanted), equal.__setitem__)
    left = [(take, skip) for _, take, _, skip in found]
    shares = []
    for counts in equal:
        own = []
        for i, (low, _, high, _) in enumerate(found):
            take, skip = left[i]
            skipped = min(skip, counts.get((i, high), 0))
            there = counts.get((i, low), 0) - (skipped if low == high else 0)
            taken = min(take, there)
            left[i] = take - taken, skip - skipped
            own.append((low, taken, high, skipped))
        shares.append(tuple(own))
    return shares


def _thresholds(each: EachTensor, kept: Sequence[Outlying | None]) -> list[Thresholds]:
    """For each model what `ByRank` takes."""
    edges = {i: (count[0], sum(count)) for i, count in enumerate(kept) if count is not None}
    counted = {i: [edge for edge in both if edge] for i, both in edges.items() if any(both)}
    upper = _sums(each, {i: {None} for i in counted})
    bins = {(i, edge): bin_of(upper[i, None], edge) for i, both in counted.items() for edge in both}
    halves = {i: {bins[i, edge][0] for edge in both} for i, both in counted.items()}
    lower = _sums(each, halves)

    def threshold(i: int, edge: int) -> tuple[int, int]:
        """The rank that so many of the largest end in, and how many of those at it are of them."""
        if not edge:
            return _ALL, 0
        half, above = bins[i, edge]
        low, over = bin_of(lower[i, half], edge - above)
        return half << _HALF | low, edge - above - over

    def of(i: int) -> Thresholds:
        if i not in edges:
            return 0, 0, _ALL, 0
        (high, skip), (low, take) = (threshold(i, edge) for edge in edges[i])
        return low, take - skip if low == high else take, high, skip

    return [of(i) for i in range(len(kept))]


def bytes_to_rank(models: int, edges: int = 1) -> int:
    """Bytes that counting takes, with so many thresholds for each model."""
    return 8 * (1 << _HALF) * ((1 + edges) * models + 2)


def _sums(each: EachTensor, wanted: Mapping[int, Collection[int | None]]) -> "dict[Half, Counts]":
    """Counts of the ranks that begin with each wanted half, of all tensors: one pass."""
    sums: dict[Half, Counts] = {}
    if not any(wanted.values()):
        return sums

    def fold(_: int, counts: "dict[Half, Counts]") -> None:
        for key, count in counts.items():
            sums[key] = sums[key] + count if key in sums else count

    each(lambda inputs: _counted(inputs, wanted), fold)
    return sums


def _counted_at(
    inputs: Inputs, wanted: Mapping[int, Collection[int]]
) -> dict[tuple[int, int], int]:
    """How many elements of a tensor have each wanted rank: one pass."""
    halves = {i: {rank >> _HALF for rank in ranks} for i, ranks in wanted.items()}
    counts = _counted(inputs, halves) if any(wanted.values()) else {}
    return {
        (i, rank): int(counts[i, rank >> _HALF][rank & (1 << _HALF) - 1])
        for i, ranks in wanted.items()
        for rank in ranks
    }


def _counted(inputs: Inputs, wanted: Mapping[int, Collection[int | None]]) -> "dict[Half, Counts]":
    """Counts of the models' ranks, of those that begin with each wanted half; None for any."""
    import numpy as np

    from tensorsurgeon.kernels.task_vectors import HALVES, tally

    counts = {
        (i, half): np.zeros(HALVES, np.int64) for i, halves in wanted.items() for half in halves
    }
    for start, stop in spans_of(inputs.elements):
        base = inputs.stored(0, start, stop)
        for i, halves in wanted.items():
            model = inputs.stored(i + 1, start, stop)
            for half in halves:
                tally(base, model, half, counts[i, half])
    return counts
