"""Which rows an embedding of the joined vocabulary is made of, run by run."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class RowOf:
    """A row of a model's own embedding."""

    model: str
    row: int


Sources = tuple[RowOf, ...]
"""What one output row is made of: nothing for zeros, one row for that row, more for their mean.

A mean is the sum of the rows in this order, in float64, divided by their number.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Output rows `start` to `stop` (half open), whose sources go on together.

    Output row `start + i` is made of row `source.row + i` of each source.
    """

    start: int
    stop: int
    sources: Sources

    def within(self, start: int, stop: int) -> "Run":
        """The part of it that lies in [start, stop)."""
        first, last = max(start, self.start), min(stop, self.stop)
        moved = first - self.start
        if not moved and last == self.stop:
            return self
        sources = tuple(RowOf(source.model, source.row + moved) for source in self.sources)
        return Run(start=first, stop=last, sources=sources)


@dataclass(frozen=True, kw_only=True)
class RowMap:
    """How one model's embedding looks in the joined vocabulary.

    With rows of `columns` elements, element `e` of the flattened new embedding, in run `run`, is
    made of element `e + (source.row - run.start) * columns` of each source's: a run is one stretch
    of each of its sources, wherever a span begins and ends. The same map holds for every tensor
    with a row for each token, as the output head.

    Attributes:
        runs: in the order of their rows, without a gap, from row 0 on; no two neighbours could be
            one run.
    """

    runs: tuple[Run, ...]

    @property
    def rows(self) -> int:
        """Number of output rows."""
        return self.runs[-1].stop if self.runs else 0

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Every model that rows are taken from, by name."""
        return tuple(sorted({source.model for run in self.runs for source in run.sources}))

    def keeps(self, model: str, rows: int) -> bool:
        """Whether it is the embedding of a model as it is, all `rows` of it."""
        return self.runs == (Run(start=0, stop=rows, sources=(RowOf(model, 0),)),)

    def between(self, start: int, stop: int) -> Iterator[Run]:
        """The runs that make output rows `start` to `stop` (half open), cut to them."""
        first = bisect_right(self.runs, start, key=lambda run: run.start) - 1
        for index in range(max(first, 0), len(self.runs)):
            run = self.runs[index]
            if run.start >= stop:
                return
            if run.stop > start:
                yield run.within(start, stop)


def row_map(rows: Iterable[Sources]) -> RowMap:
    """A map of the sources of each output row, in order."""
    runs: list[Run] = []
    start, begun = 0, None
    count = 0
    for count, sources in enumerate(rows, 1):
        if begun is not None and not _goes_on(begun, sources, count - 1 - start):
            runs.append(Run(start=start, stop=count - 1, sources=begun))
            begun = None
        if begun is None:
            start, begun = count - 1, sources
    if begun is not None:
        runs.append(Run(start=start, stop=count, sources=begun))
    return RowMap(runs=tuple(runs))


def _goes_on(begun: Sources, sources: Sources, distance: int) -> bool:
    """Whether a row is what a run that began `distance` rows before comes to."""
    return len(begun) == len(sources) and all(
        there.model == here.model and there.row + distance == here.row
        for there, here in zip(begun, sources, strict=True)
    )
