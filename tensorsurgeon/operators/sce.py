"""Task vectors where they vary most, weighted by their size, with elected signs."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tensorsurgeon.operators.elementwise import Elementwise, added, bytes_of_blocks, task_vectors
from tensorsurgeon.operators.ranking import Ranking, Threshold
from tensorsurgeon.operators.streaming import Inputs, Read, blocks, by_block
from tensorsurgeon.recipe import Schedule, UnitSchedule
from tensorsurgeon.specs import SPAN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tensorsurgeon.kernels import Values


class Sce(Elementwise):
    """SCE: select what varies most, calculate models' shares, erase minority signs.

    Of each tensor's elements on which the models differ exactly floor(select_topk * their number)
    are kept, those with the largest standard deviation over the models, compared as float32; of
    equal ones those with the lowest flat index. A model's share is the mean square of what is left
    of its difference from the base, divided by the sum of them all; shares are equal where that sum
    is below 1e-6, as in the authors' program, though not in the paper (Wan et al. 2024, FuseChat,
    arXiv:2408.07990). Of each element only those differences count whose sign is that of their sum,
    where 0 is positive; they are averaged by their models' shares.
    """

    operator: ClassVar[str] = "sce"
    example: ClassVar[str] = "{sce: {base: base, models: [a, b, c], select_topk: 0.1}}"

    select_topk: UnitSchedule = Field(
        default=Schedule.constant(1.0),
        description="share that is kept of the elements on which the models differ; 1 keeps all",
    )

    def kept(self, select_topk: float) -> tuple[int, ...] | None:
        """None where nothing is selected."""
        return None if select_topk else ()

    def times_read(self, select_topk: float) -> int:
        """Twice to select, then to calculate and to erase."""
        return 4 if select_topk < 1.0 else 2

    def bytes_held(self, shape: tuple[int, ...], count: int) -> int:  # noqa: ARG002
        """The blocks that are worked on, and a buffer for their dot products."""
        return bytes_of_blocks(count) + 8 * SPAN

    def begin(self, inputs: Inputs, select_topk: float) -> Read:
        """Select, calculate, then erase a block at a time."""
        threshold = None
        if select_topk < 1.0:
            ranking = Ranking(inputs, lambda block, _: _spread(block[1:]))
            wanted = int(ranking.nonzero * select_topk)
            if not wanted:
                return by_block(inputs, lambda block: block[0])
            (threshold,) = ranking.thresholds([wanted])
        shares = _shares(inputs, threshold)
        select = _selecting(threshold)

        def merged(block: list["Values"]) -> "Values":
            selected = select(block)
            change = _erased(task_vectors(block), shares)
            change *= selected
            return added(block[0], change)

        return by_block(inputs, merged)


def _selecting(
    threshold: Threshold | None,
) -> Callable[[list["Values"]], "NDArray[np.bool_] | float"]:
    """Tells for one pass which elements of one block after the other are selected, as 1 and 0."""
    if threshold is None:
        return lambda _: 1.0
    keep = threshold.keeping()
    return lambda block: keep(_spread(block[1:]))


def _spread(models: list["Values"]) -> "Values":
    """The population standard deviation of each element over the models, or over task vectors."""
    import numpy as np

    first, *others = models
    # From the first, so that it is 0 where, and only where, all are equal.
    apart = [other - first for other in others]
    if len(apart) == 1:
        return np.multiply(np.abs(apart[0], out=apart[0]), 0.5, out=apart[0])
    mean = sum(apart, start=np.zeros_like(first)) / len(models)
    squares = mean * mean
    for vector in apart:
        np.subtract(vector, mean, out=vector)
        squares += np.multiply(vector, vector, out=vector)
    return np.sqrt(squares / len(models))


def _shares(inputs: Inputs, threshold: Threshold | None) -> tuple[float, ...]:
    """The models' shares of the mean squares of what is selected: one pass."""
    import numpy as np

    from tensorsurgeon.kernels import Scratch, dot

    scratch = Scratch(1)
    select = _selecting(threshold)
    squares = [0.0] * (inputs.count - 1)
    for block in blocks(inputs):
        selected = select(block)
        for i, vector in enumerate(task_vectors(block)):
            np.multiply(vector, selected, out=vector)
            squares[i] += dot(vector, vector, scratch=scratch)
    means = [square / max(inputs.elements, 1) for square in squares]
    total = math.fsum(means)
    if total == 0.0:
        return (1.0 / len(means),) * len(means)
    return tuple(mean / total for mean in means)


def _erased(vectors: list["Values"], shares: tuple[float, ...]) -> "Values":
    """The mean of the vectors that have the sign of their sum, by their shares."""
    import numpy as np

    sign = np.copysign(1.0, sum(vectors[1:], start=vectors[0]))
    divisor = np.zeros_like(sign)
    for vector, share in zip(vectors, shares, strict=True):
        np.multiply(vector, sign, out=vector)
        divisor += share * (vector > 0.0)
        np.maximum(vector, 0.0, out=vector)
        np.multiply(vector, share, out=vector)
    merged = sum(vectors[1:], start=vectors[0])
    divisor[divisor == 0.0] = 1.0
    merged /= divisor
    return np.multiply(merged, sign, out=merged)
