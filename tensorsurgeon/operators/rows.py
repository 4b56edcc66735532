"""Embeddings of one vocabulary made of rows of others: the same rows elsewhere, or means.

The rows of a large vocabulary come from anywhere in their sources. What lies close together is read
together; a source that is read here and there is read once from end to end before, so that a disk
reads ahead, and what comes from the network is stored.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from tensorsurgeon.operators.streaming import Inputs, Read, StreamedOperator, by_rows, spans_of
from tensorsurgeon.specs import SPAN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tensorsurgeon.kernels import Values

    Indices = NDArray[np.intp]

GAP = 1 << 10
"""Elements between two rows that are read along, if they are more than a row; else one row is."""

JUMPS = 64
"""Most places of an input where what is wanted does not go on, without a pass before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """One source for each of some output rows. Every array is as long as there are such rows.

    Attributes:
        rows: int32, output rows, ascending, each once.
        inputs: int16, the input that the source is a row of.
        places: int32, which row of it.
    """

    rows: bytes
    inputs: bytes
    places: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """What is taken of one input.

    Attributes:
        rows: how many rows it has.
        taken: how many are taken, those taken twice counted twice.
        jumps: how often the next one is not the one behind.
    """

    rows: int
    taken: int
    jumps: int

    @property
    def is_scattered(self) -> bool:
        """Whether it is read from end to end before."""
        return self.jumps > JUMPS


class Rows(StreamedOperator):
    """One tensor that has a row for each token, for another vocabulary.

    An output row is the mean of its sources, summed in their order; one without a source is zero.
    The tensor has as many elements for each row as its inputs have for each of theirs.

    Attributes:
        rows: how many there are.
        terms: the first source of every row that has one, then the second of those that have two,
            and so on.
        uses: what is taken of each input.
    """

    operator: ClassVar[str] = "vocabulary"

    rows: int
    terms: tuple[Term, ...]
    uses: tuple[Use, ...]

    def times_read(self, *args: Any, **parameters: Any) -> int:  # noqa: ARG002
        """Twice where what is wanted lies here and there."""
        return 1 + any(use.is_scattered for use in self.uses)

    def bytes_before(self, inputs: Sequence[int], *args: Any, **parameters: Any) -> int:  # noqa: ARG002
        """All of those inputs that are read from end to end."""
        return sum(size for size, use in zip(inputs, self.uses, strict=True) if use.is_scattered)

    def bytes_of_pass(self, inputs: Sequence[int]) -> int:
        """The rows that are taken."""
        used = zip(inputs, self.uses, strict=True)
        return sum(size * use.taken // max(1, use.rows) for size, use in used)

    def bytes_held(self, shape: tuple[int, ...], count: int) -> int:
        """A window, what was read of it and what was chosen; where each row comes from."""
        longest = max(SPAN, *shape)
        listed = sum(len(part) for term in self.terms for part in (term.rows, term.inputs))
        return 8 * (3 + count) * longest + 8 * self.rows + 2 * listed

    def begin(self, inputs: Inputs, *args: Any, **parameters: Any) -> Read:  # noqa: ARG002
        """Read those inputs from end to end that it is better for."""
        columns = inputs.elements // max(1, self.rows)
        for index, use in enumerate(self.uses):
            if use.is_scattered:
                for start, stop in spans_of(use.rows * columns):
                    inputs.stored(index, start, stop)
        return by_rows(inputs, _Gatherer(inputs, self.terms, self.rows, columns).fill)


class _Gatherer:
    """Gathers rows.

    Args:
        inputs: where from.
        terms: which.
        rows: how many there are in the end.
        columns: elements of each.
    """

    def __init__(self, inputs: Inputs, terms: Sequence[Term], rows: int, columns: int) -> None:
        import numpy as np

        self._inputs, self._columns = inputs, columns
        self._terms = [
            (
                np.frombuffer(term.rows, np.int32),
                np.frombuffer(term.inputs, np.int16),
                np.frombuffer(term.places, np.int32),
            )
            for term in terms
        ]
        self._counts = np.zeros(rows, np.int16)
        for of_term, _, _ in self._terms:
            self._counts[of_term] += 1

    def fill(self, start: int, stop: int, out: "Values") -> None:
        """Set whole rows, from one flat index to another."""
        import numpy as np

        first, last = start // self._columns, stop // self._columns
        matrix = out.reshape(-1, self._columns)
        counts = self._counts[first:last]
        matrix[counts == 0] = 0
        for number, (rows, inputs, places) in enumerate(self._terms):
            low, high = np.searchsorted(rows, (first, last))
            for index in np.unique(inputs[low:high]):
                chosen = low + np.flatnonzero(inputs[low:high] == index)
                into = rows[chosen] - first
                self._take(int(index), places[chosen], into, matrix, add=number > 0)
        several = np.flatnonzero(counts > 1)
        matrix[several] /= counts[several, None]

    def _take(
        self, index: int, places: "Indices", into: "Indices", matrix: "Values", *, add: bool
    ) -> None:
        """Put rows of one input into rows of the matrix, or add them."""
        import numpy as np

        gap = max(1, GAP // self._columns)
        order = np.argsort(places, kind="stable")
        places, into = places[order], into[order]
        for low, high in _windows(places, max(1, SPAN // self._columns), gap):
            first, last = int(places[low]), int(places[high - 1]) + 1
            self._inputs.stored(index, first * self._columns, last * self._columns)
            read = self._inputs.block(index, 0, (last - first) * self._columns)
            values = read.reshape(-1, self._columns)
            if last - first > 1:
                values = values[places[low:high] - first]
            if add:
                matrix[into[low:high]] += values
            else:
                matrix[into[low:high]] = values


def _windows(places: "Indices", most: int, gap: int) -> Iterator[tuple[int, int]]:
    """Parts [low, high) of ascending places that are read together.

    Args:
        places: the places.
        most: from the first to the last of a part there are fewer.
        gap: most places between two neighbours of a part.
    """
    import numpy as np

    breaks = (np.flatnonzero(np.diff(places) > gap + 1) + 1).tolist()
    for low, high in pairwise([0, *breaks, len(places)]):
        begin = low
        while places[high - 1] - places[begin] >= most:
            end = int(np.searchsorted(places, places[begin] + most))
            yield begin, end
            begin = end
        yield begin, high
