"""LoRA adapters applied to a model: Hu et al. 2021, "Low-Rank Adaptation of Large Language Models".

An adapted weight is W + s B A, and with DoRA (Liu et al. 2024) each of its rows is then brought to
a length that was trained as well. The product is summed over the rank in one order, in float64.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.operators.streaming import (
    Inputs,
    Read,
    StreamedOperator,
    by_rows,
    rows_at_a_time,
    spans_of,
)
from tensorsurgeon.recipe import Expression, Operator, Schedule
from tensorsurgeon.recipe.schedule import AnySchedule
from tensorsurgeon.specs import SPAN

if TYPE_CHECKING:
    from tensorsurgeon.kernels import Values
    from tensorsurgeon.kernels.low_rank import Matrix

_WEIGHT, _A, _B, _MAGNITUDE = range(4)
"""The inputs of an adapted tensor."""


class Lora(Operator):
    """A model with a LoRA, rsLoRA or DoRA adapter, as if it had been merged into it.

    A tensor W with factors A and B of rank r becomes W' = W + s B A, where s is alpha / r (Hu et
    al. 2021, arXiv:2106.09685), or alpha / sqrt(r) with rsLoRA (Kalajdzievski 2023,
    arXiv:2312.03732); with DoRA (Liu et al. 2024, arXiv:2402.09353) its rows are then brought to
    the trained lengths. The result is W + weight * (W' - W), computed in float64. PEFT's merge
    rounds the product to the adapter's dtype, and the sum to the model's.
    """

    operator: ClassVar[str] = "lora"
    example: ClassVar[str] = "{lora: {model: base, adapter: ./adapter}}"

    model: Expression = Field(description="the model the adapter was trained over")
    adapter: str = Field(
        description="a folder with adapter_config.json, relative to the recipe, or a Hub repo as "
        "org/name@revision",
        min_length=1,
    )
    weight: AnySchedule = Field(
        default=Schedule.constant(1.0),
        description="how far to go: 0 gives the model, 1 the adapter as it was trained",
    )


class LowRank(StreamedOperator):
    """One tensor under an adapter. Its inputs are W, A, B and, with DoRA, the magnitudes.

    W is (out, in), A (rank, in), B (out, rank), magnitudes (out,). Rows of W and of B are streamed,
    A is held. A weight that is stored as (in, out), an embedding's or a Conv1D's, is the transpose
    of that: then all of A and B is held, and DoRA takes a pass more, to sum up columns.

    Attributes:
        name: of the tensor, for messages.
        base: the model that is adapted.
        rank: of A and B.
        transposed: whether W is stored as (in, out).
        with_magnitudes: whether it is DoRA.
    """

    operator: ClassVar[str] = "lora"

    name: str
    base: Expression
    rank: int
    transposed: bool
    with_magnitudes: bool

    def times_read(self, *args: Any, **parameters: Any) -> int:  # noqa: ARG002
        """Twice where lengths are those of columns."""
        return 2 if self.with_magnitudes and self.transposed else 1

    def bytes_held(self, shape: tuple[int, ...], count: int) -> int:  # noqa: ARG002
        """A, or all factors; whole rows, their decoded inputs, and their rows of a factor."""
        rows, columns = shape
        held = self.rank * (columns + (rows + columns if self.transposed else 0))
        lengths = rows + 3 * columns if self.with_magnitudes else 0
        return 8 * (held + lengths + 4 * max(SPAN, columns, self.rank))

    def begin(self, inputs: Inputs, scale: float, weight: float, **_: Any) -> Read:
        """Take what is held, and the lengths of columns where they are wanted."""
        product = _Transposed(inputs, self.rank) if self.transposed else _Product(inputs, self.rank)
        if not self.with_magnitudes:
            return by_rows(inputs, partial(product.changed, scale * weight))
        by_columns = self.transposed
        factors = self._of_columns(inputs, product, scale) if by_columns else self._of_rows(inputs)

        def fill(start: int, stop: int, out: "Values") -> None:
            product.changed(scale, start, stop, out)
            matrix = product.matrix(out)
            matrix *= factors(start, matrix)
            if weight != 1.0:
                original = inputs.block(_WEIGHT, 0, stop - start)
                out -= original
                out *= weight
                out += original

        return by_rows(inputs, fill)

    def _of_rows(self, inputs: Inputs) -> "_Factors":
        """Factors of rows, whose lengths are known as soon as they are read."""
        import numpy as np

        from tensorsurgeon.kernels.low_rank import row_squares

        rows, columns = inputs.shape
        magnitudes = _held(inputs, _MAGNITUDE, rows)

        def factors(start: int, matrix: "Matrix") -> "Matrix":
            first = start // columns
            wanted = magnitudes[first : first + len(matrix)]
            return self._quotients(wanted, np.sqrt(row_squares(matrix)), "row", first)[:, None]

        return factors

    def _of_columns(self, inputs: Inputs, product: "_Product", scale: float) -> "_Factors":
        """Factors of columns: one pass over all rows."""
        import numpy as np

        from tensorsurgeon.kernels.low_rank import add_column_squares

        _, columns = inputs.shape
        magnitudes, sums = _held(inputs, _MAGNITUDE, columns), np.zeros(columns)
        step = rows_at_a_time(inputs.shape)
        window = np.empty(min(step, inputs.elements))
        for start, stop in spans_of(inputs.elements, step):
            values = window[: stop - start]
            product.changed(scale, start, stop, values)
            add_column_squares(product.matrix(values), sums)
        found = self._quotients(magnitudes, np.sqrt(sums), "column", 0)[None]
        return lambda _start, _matrix: found

    def _quotients(
        self, magnitudes: "Values", lengths: "Values", what: str, first: int
    ) -> "Values":
        """What brings rows or columns to their magnitudes; zeros stay zeros.

        Raises:
            CheckpointError: one that is zero has a magnitude.
        """
        import numpy as np

        lost = np.flatnonzero((lengths == 0) & (magnitudes != 0))
        if len(lost):
            raise CheckpointError(
                f"{what} {first + int(lost[0])} is all zero under the adapter, so that DoRA cannot "
                f"bring it to the length {float(magnitudes[lost[0]]):g}",
                where=f"tensor '{self.name}'",
                fix="the adapter was trained over another model",
            )
        return np.divide(magnitudes, lengths, out=np.zeros_like(lengths), where=lengths != 0)


class _Product:
    """Rows of W with rows of B A added.

    Args:
        inputs: of the tensor.
        rank: of the factors.
    """

    def __init__(self, inputs: Inputs, rank: int) -> None:
        self.inputs, self.rank = inputs, rank
        self._shared = self.shared()

    def shared(self) -> "Matrix":
        """(rank, columns of W): the factor that all rows share."""
        return _held(self.inputs, _A, self.rank * self.inputs.shape[1]).reshape(self.rank, -1)

    def rows(self, first: int, last: int) -> "Matrix":
        """(last - first, rank): the other factor, for some rows of W."""
        self.inputs.stored(_B, first * self.rank, last * self.rank)
        values = self.inputs.block(_B, 0, (last - first) * self.rank)
        return values.reshape(last - first, self.rank)

    def matrix(self, values: "Values") -> "Matrix":
        """Whole rows of W, one below the other."""
        return values.reshape(-1, self.inputs.shape[1])

    def changed(self, factor: float, start: int, stop: int, out: "Values") -> None:
        """Set whole rows, from one flat index to another, to W + factor * B A."""
        from tensorsurgeon.kernels.low_rank import add_product

        self.inputs.stored(_WEIGHT, start, stop)
        out[:] = self.inputs.block(_WEIGHT, 0, stop - start)
        matrix = self.matrix(out)
        above = start // self.inputs.shape[1]
        for first, last in spans_of(len(matrix), max(1, SPAN // self.rank)):
            rows = self.rows(above + first, above + last)
            add_product(rows, self._shared, factor, matrix[first:last])


class _Transposed(_Product):
    """The same of a weight that is stored as (in, out)."""

    def __init__(self, inputs: Inputs, rank: int) -> None:
        self._a = _held(inputs, _A, rank * inputs.shape[0]).reshape(rank, -1)
        super().__init__(inputs, rank)

    def shared(self) -> "Matrix":
        """(rank, out): B, the other way round."""
        import numpy as np

        b = _held(self.inputs, _B, self.inputs.shape[1] * self.rank).reshape(-1, self.rank)
        return np.ascontiguousarray(b.T)

    def rows(self, first: int, last: int) -> "Matrix":
        """(last - first, rank): columns of A."""
        import numpy as np

        return np.ascontiguousarray(self._a[:, first:last].T)


_Factors = Callable[[int, "Matrix"], "Matrix"]
"""What to multiply rows by, given the flat index they begin at."""


def _held(inputs: Inputs, index: int, elements: int) -> "Values":
    """All values of an input."""
    import numpy as np

    values = np.empty(elements)
    for start, stop in spans_of(elements):
        inputs.stored(index, start, stop)
        values[start:stop] = inputs.block(index, 0, stop - start)
    return values
