"""A model's differences from a base where they matter most."""

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from tensorsurgeon.operators.elementwise import added, bytes_of_blocks, task_vectors
from tensorsurgeon.operators.families import Base
from tensorsurgeon.operators.ranking import Ranking
from tensorsurgeon.operators.streaming import (
    BLOCK,
    Inputs,
    Read,
    StreamedOperator,
    by_block,
    columns_of,
    rows_at_a_time,
    spans_of,
)
from tensorsurgeon.recipe import Expression
from tensorsurgeon.specs import SPAN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tensorsurgeon.kernels import Values

_LEAST = 1e-8
"""What is added to a probability, so that it is not 0."""

_BETWEEN = 8
"""Blocks of whole rows that hold what is on its way to their divergence."""


class ArceeFusion(StreamedOperator):
    """Arcee Fusion: a model's elements where their importance stands out (Arcee AI 2025).

    An element's importance is |model - base| times the Kullback-Leibler divergence of its row, of
    the softmax of the base's from that of the model's, to each of whose probabilities 1e-8 is
    added; a vector is one row. The model's elements are taken over where it is at least median +
    1.5 * (upper - lower quartile) of the whole tensor, where quantile q of n elements is number
    floor(q * (n - 1)) of them in ascending order, from 0. Importance is compared as float32.
    """

    operator: ClassVar[str] = "arcee_fusion"
    example: ClassVar[str] = "{arcee_fusion: {base: base, model: a}}"

    base: Base
    model: Annotated[Expression, Field(description="the model that is fused into the base")]

    def times_read(self, **_: Any) -> int:
        """For the divergences, twice for the quantiles, and to fuse."""
        return 4

    def bytes_held(self, shape: tuple[int, ...], count: int) -> int:
        """A number for each row, the blocks that are worked on, and rows longer than a span."""
        columns = columns_of(shape)
        rows = 4 * math.prod(shape[:-1]) + _BETWEEN * 8 * max(BLOCK, columns)
        return rows + bytes_of_blocks(count) + (count * 8 * columns if columns > SPAN else 0)

    def begin(self, inputs: Inputs) -> Read:
        """Find the threshold, then fuse."""
        import numpy as np

        importance = _Importance(inputs)
        n = inputs.elements
        places = [n - int(q * (n - 1)) for q in (0.25, 0.5, 0.75)]
        found = Ranking(inputs, importance.of).thresholds(places)
        lower, median, upper = (threshold.value for threshold in found)
        # A number of numpy's, so that float32 is compared with it in float64.
        least = np.float64(median + 1.5 * (upper - lower))
        start = 0

        def fused(block: list["Values"]) -> "Values":
            nonlocal start
            rounded = importance.of(block, start).astype(np.float32)
            start += len(rounded)
            (difference,) = task_vectors(block)
            return added(block[0], difference * (rounded >= least))

        return by_block(inputs, fused)


class _Importance:
    """How much elements matter. Making one takes a pass over the inputs.

    Args:
        inputs: base and model.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._columns = columns_of(inputs.shape)
        self._divergences = _divergences(inputs)

    def of(self, block: list["Values"], start: int) -> "Values":
        """(n,) importance of a block from a flat index on."""
        import numpy as np

        base, model = block
        difference = model - base
        np.abs(difference, out=difference)
        first, last = start // self._columns, (start + len(base) - 1) // self._columns
        lengths = np.full(last - first + 1, self._columns)
        lengths[-1] = start + len(base) - last * self._columns
        lengths[0] -= start - first * self._columns
        rows = np.repeat(self._divergences[first : last + 1], lengths)
        return np.multiply(difference, rows, out=difference)


def _divergences(inputs: Inputs) -> "NDArray[np.float32]":
    """(rows,) of each row.

    They are rounded to float32: what exponentials and sums have in their last digits is not the
    same on all machines.
    """
    import numpy as np

    columns = columns_of(inputs.shape)
    found = np.empty(math.prod(inputs.shape[:-1]), np.float32)
    step = max(1, BLOCK // max(columns, 1)) * columns
    for start, stop in spans_of(inputs.elements, rows_at_a_time(inputs.shape)):
        inputs.stored(0, start, stop)
        inputs.stored(1, start, stop)
        for low, high in spans_of(stop - start, step):
            base, model = (_rows(inputs, i, low, high) for i in range(2))
            row = (start + low) // columns
            found[row : row + len(base)] = _divergence(model, base)
    return found


def _rows(inputs: Inputs, index: int, start: int, stop: int) -> "Values":
    """(rows, columns) of the span of an input that was read last."""
    import numpy as np

    parts = [
        inputs.block(index, start + low, start + high)
        for low, high in spans_of(stop - start, BLOCK)  # a row may be longer than a span
    ]
    return np.concatenate(parts).reshape(-1, columns_of(inputs.shape))


def _divergence(model: "Values", base: "Values") -> "Values":
    """(rows,) divergences of the softmax of a base's rows from that of a model's.

    Args:
        model: (rows, columns); overwritten.
        base: (rows, columns); overwritten.
    """
    import numpy as np

    p, q = _softmax(model), _softmax(base)
    np.subtract(q, p, out=q)
    np.divide(q, p, out=q)
    # Of p log(p / q) - p + q no term is negative, so that small divergences do not cancel out.
    terms = np.subtract(q, np.log1p(q), out=q)
    sums: Values = np.add.reduce(np.multiply(terms, p, out=terms), axis=1)
    return np.maximum(sums, 0.0)


def _softmax(rows: "Values") -> "Values":
    """The softmax of rows plus a little, in their place."""
    import numpy as np

    np.subtract(rows, np.maximum.reduce(rows, axis=1, keepdims=True), out=rows)
    np.exp(rows, out=rows)
    np.divide(rows, np.add.reduce(rows, axis=1, keepdims=True), out=rows)
    return np.add(rows, _LEAST, out=rows)
