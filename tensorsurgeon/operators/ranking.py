"""Thresholds among scores that are computed block by block: exact, in two passes.

Scores are compared as they are when rounded to float32, so that what float64 sums leave in their
last digits decides nothing; of equal ones the lower flat index comes first.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tensorsurgeon.operators.streaming import Inputs, blocks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tensorsurgeon.kernels import Values
    from tensorsurgeon.kernels.task_vectors import Counts, Stored

Score = Callable[[list["Values"], int], "Values"]
"""Makes (n,) float64 scores, none negative, of a block of all inputs and its first flat index."""

_HALF = 16
"""Bits of each half of a rank's word; see `kernels.task_vectors`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Threshold:
    """The score at a place, counted from the largest.

    Attributes:
        value: the score, a float32.
        take: how many elements with this score stand at that place or before it.
    """

    value: float
    take: int

    def keeping(self) -> Callable[["Values"], "NDArray[np.bool_]"]:
        """Tells which elements stand at the place or before it, for one pass.

        What it returns takes the scores of one block after the other, from the first on.
        """
        import numpy as np

        left = self.take

        def kept(scores: "Values") -> "NDArray[np.bool_]":
            nonlocal left
            rounded = scores.astype(np.float32)
            above = rounded > self.value
            if left:
                equal = np.flatnonzero(rounded == self.value)[:left]
                above[equal] = True
                left -= len(equal)
            return above

        return kept


class Ranking:
    """The order of a tensor's elements by their scores. One pass over the inputs.

    Args:
        inputs: the tensors.
        score: of their elements.

    Attributes:
        nonzero: how many scores are not 0.
    """

    def __init__(self, inputs: Inputs, score: Score) -> None:
        import numpy as np

        from tensorsurgeon.kernels.task_vectors import HALVES, tally

        self._inputs = inputs
        self._score = score
        self._upper: Counts = np.zeros(HALVES, np.int64)
        self.nonzero = 0
        for rounded in self._rounded():
            tally(None, _stored(rounded), None, self._upper)
            self.nonzero += int(np.count_nonzero(rounded != 0.0))

    def thresholds(self, places: Sequence[int]) -> list[Threshold]:
        """The scores at places, of which 1 is the largest's. One more pass."""
        import numpy as np

        from tensorsurgeon.kernels.task_vectors import HALVES, tally

        bins = [bin_of(self._upper, place) for place in places]
        lower: dict[int, Counts] = {half: np.zeros(HALVES, np.int64) for half, _ in bins}
        for rounded in self._rounded():
            for half, counts in lower.items():
                tally(None, _stored(rounded), half, counts)
        found = []
        for place, (half, above) in zip(places, bins, strict=True):
            low, over = bin_of(lower[half], place - above)
            value = np.uint32(half << _HALF | low).view(np.float32)
            found.append(Threshold(value=float(value), take=place - above - over))
        return found

    def _rounded(self) -> Iterator["NDArray[np.float32]"]:
        import numpy as np

        start = 0
        for block in blocks(self._inputs):
            scores = self._score(block, start)
            start += len(scores)
            yield scores.astype(np.float32)


def bin_of(counts: "Counts", place: int) -> tuple[int, int]:
    """The bin that a place, counted from the highest bin's end, lies in; how many lie above it.

    Args:
        counts: of what each bin holds.
        place: 1 for the first.
    """
    import numpy as np

    above = np.cumsum(counts[::-1])
    index = min(int(np.searchsorted(above, place)), len(counts) - 1)
    return len(counts) - 1 - index, int(above[index] - counts[::-1][index])


def _stored(rounded: "NDArray[np.float32]") -> "Stored":
    import numpy as np

    from tensorsurgeon.kernels.task_vectors import Stored
    from tensorsurgeon.specs import DType

    return Stored(rounded.view(np.uint8), DType.F32)
