"""Which source each sample of a run comes from: a function of weights, seed and its number."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tensorsurgeon.errors import DataError
from tensorsurgeon.trainer.data.orders import Recent, order

BLOCK = 1024
"""Samples within which sources are shuffled."""

PERIOD = 1024
"""Blocks after which the sources' counts repeat; weights are multiples of 1 / (BLOCK * PERIOD)."""

SOURCE_LIMIT = 32


class Mixture:
    """Sources by weight: after any number of blocks each has its share to within one sample.

    The whole part of a source's share of a block is the same in every block. What remains are
    shares of whole samples, given one by one to the source that must have one soonest, of those
    that are not ahead of their share (Baruah et al. 1996, proportionate progress); with a single
    resource no source is ever a whole sample ahead or behind.

    Args:
        weights: of each source, above 0, at most SOURCE_LIMIT.
        seed: of the order within blocks.

    Raises:
        DataError: too many sources, or a weight that is not above 0, or too small to count.
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        self._seed = seed
        self.units = _in_units(weights)
        self._whole = self.units // PERIOD
        self._extras = _extras(self.units % PERIOD)
        self._block = Recent(self._make_block)

    def place(self, sample: int) -> tuple[int, int]:
        """The source of a sample of the run, and how many samples of it come before."""
        block, offset = divmod(sample, BLOCK)
        sources, indices = self._block(block)
        return int(sources[offset]), int(indices[offset])

    def before_block(self, block: int) -> NDArray[np.int64]:
        """(sources,) int64, how many samples of each source come before a block."""
        periods, rest = divmod(block, PERIOD)
        before: NDArray[np.int64] = periods * self.units + rest * self._whole + self._extras[rest]
        return before

    def before(self, sample: int) -> NDArray[np.int64]:
        """(sources,) int64, how many samples of each source come before a sample."""
        block, offset = divmod(sample, BLOCK)
        sources, _ = self._block(block)
        return self.before_block(block) + np.bincount(sources[:offset], minlength=len(self.units))

    def _make_block(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of each sample of a block the source, and how many of that source come before it."""
        before, after = self.before_block(block), self.before_block(block + 1)
        sources, indices = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
        shuffled = order(BLOCK, "block", self._seed, block)
        sources[shuffled] = np.repeat(np.arange(len(self.units)), after - before)
        # Each source's samples keep their order, so that its epochs follow each other.
        by_source = np.argsort(sources, kind="stable")
        runs = zip(before, after, strict=True)
        indices[by_source] = np.concatenate([np.arange(*run) for run in runs])
        return sources, indices


def _in_units(weights: Sequence[float]) -> NDArray[np.int64]:
    """Weights as whole numbers that add up to BLOCK * PERIOD, by largest remainder."""
    if not 1 <= len(weights) <= SOURCE_LIMIT:
        raise DataError(f"{len(weights)} sources: a mixture has 1 to {SOURCE_LIMIT}")
    values = np.array(weights, np.float64)
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise DataError(f"weights must be numbers above 0, not {list(weights)}")
    shares = values / values.sum() * (BLOCK * PERIOD)
    units: NDArray[np.int64] = np.floor(shares).astype(np.int64)
    lacking = BLOCK * PERIOD - int(units.sum())
    units[np.argsort(units - shares, kind="stable")[:lacking]] += 1
    if not units.all():
        what = f"weight {weights[int(np.argmin(units))]:g} is less than a millionth of all"
        raise DataError(what, fix="leave that source out, or raise its weight")
    return units


def _extras(rests: NDArray[np.int64]) -> NDArray[np.int64]:
    """Samples that each source has had beyond its whole ones, before each block of a period.

    Args:
        rests: (sources,) what of a source's units is no whole sample of a block.

    Returns:
        (PERIOD + 1, sources) int64; each row has the same number more than the one before.
    """
    shares = [int(rest) for rest in rests]
    total = sum(shares)
    each_block = total // PERIOD
    given = [0] * len(shares)
    rows = [tuple(given)]
    for time in range(1, total + 1):
        soonest, chosen = total + 1, -1
        for source, share in enumerate(shares):
            if given[source] * total < share * time:  # else it would be a whole sample ahead
                deadline = -(-(given[source] + 1) * total // share)
                if deadline < soonest:
                    soonest, chosen = deadline, source
        given[chosen] += 1
        if time % each_block == 0:
            rows.append(tuple(given))
    if not total:
        rows *= PERIOD + 1
    return np.array(rows, np.int64)
