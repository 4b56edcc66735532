"""Geometric methods that take each row, or each column, of a matrix as a vector of its own."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

from tensorsurgeon.operators.families import GeometricOperator, Parameters
from tensorsurgeon.operators.streaming import (
    BLOCK,
    Inputs,
    Read,
    StreamedOperator,
    by_rows,
    columns_of,
    rows_at_a_time,
    spans_of,
)
from tensorsurgeon.recipe import Operator, Place, Reference
from tensorsurgeon.specs import SPAN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tensorsurgeon.kernels import Values

    Rows = NDArray[np.float64]
    """(rows, columns) some whole rows of one input."""

    Shares = NDArray[np.float64]
    """(inputs, vectors) the weight of each input in each vector."""


class ByVector(StreamedOperator):
    """A geometric method on vectors that are rows, or columns, of a tensor.

    Rows run along the last axis, columns along the one before. The weights of each vector are
    what the method gives for its Gram matrix, whose products are summed in an order that depends
    on the shape alone. A vector with a NaN or an infinity becomes NaN.

    Attributes:
        whole: the method.
        columns: whether vectors are columns; a tensor of more axes is a stack of matrices.
    """

    whole: GeometricOperator
    columns: bool

    @classmethod
    def instead_of(
        cls, whole: GeometricOperator, place: Place, shape: tuple[int, ...], *, columns: bool
    ) -> Self | GeometricOperator:
        """What makes a tensor: the method itself where that is one vector, or weights are known."""
        foregone = whole.foregone(**dict(whole.parameters_at(place)))
        if len(shape) < 2 or foregone is not None:
            return whole
        return cls(whole=whole, columns=columns)

    @property
    def origin(self) -> Reference | Operator | None:
        """The method's base."""
        return self.whole.origin

    def is_idempotent(self) -> bool:
        """As the method is."""
        return self.whole.is_idempotent()

    def parameters_at(self, place: Place) -> Parameters:
        """The method's parameters."""
        return self.whole.parameters_at(place)

    def times_read(self, **_: Any) -> int:
        """Rows are held as a whole, columns are read for their dot products first."""
        return 2 if self.columns else 1

    def bytes_held(self, shape: tuple[int, ...], count: int) -> int:
        """The rows of the result, some rows of each input, and columns' dot products."""
        columns = columns_of(shape)
        vectors = columns if self.columns else max(1, BLOCK // max(1, columns))
        long = count * columns if columns > SPAN else 0
        some = (count + 2) * max(BLOCK, columns)
        return 8 * (rows_at_a_time(shape) + long + some + 3 * vectors * (count + 1) ** 2)

    def begin(self, inputs: Inputs, **parameters: Any) -> Read:
        """Read rows once; columns once more before."""
        based = self.origin is not None
        shares_of = self._weigher(inputs, parameters)

        def fill_rows(start: int, stop: int, out: "Values") -> None:
            for at, origin, vectors in _some_rows(inputs, start, stop, based=based):
                shares = shares_of(_grams(vectors, _sums_of_rows))
                _combine(origin, vectors, shares[:, :, None], out[at - start :])

        matrix = columns_of(inputs.shape) * inputs.shape[-2]
        known: dict[int, Shares] = {}

        def fill_by_columns(start: int, stop: int, out: "Values") -> None:
            while start < stop:
                number = start // matrix
                end = min(stop, (number + 1) * matrix)
                if number not in known:
                    known.clear()
                    known[number] = shares_of(_grams_of_columns(inputs, number, based=based))
                for at, origin, vectors in _some_rows(inputs, start, end, based=based):
                    _combine(origin, vectors, known[number][:, None, :], out[at - start :])
                start, out = end, out[end - start :]

        return by_rows(inputs, fill_by_columns if self.columns else fill_rows)

    def _weigher(
        self, inputs: Inputs, parameters: dict[str, Any]
    ) -> Callable[["NDArray[np.float64]"], "Shares"]:
        """Finds the weights for (vectors, n, n) dot products, and tells once what is odd."""
        import numpy as np

        told = {""}

        def shares_of(grams: "NDArray[np.float64]") -> "Shares":
            shares = np.full(grams.shape[:2], np.nan)
            for i in np.flatnonzero(np.isfinite(grams).all(axis=(1, 2))).tolist():
                found = self.whole.coefficients(grams[i].tolist(), **parameters)
                shares[i] = found.values
                if found.note not in told:
                    told.add(found.note)
                    inputs.note(f"some {'columns' if self.columns else 'rows'}: {found.note}")
            return shares.T

        return shares_of


def _some_rows(
    inputs: Inputs, start: int, stop: int, *, based: bool
) -> Iterator[tuple[int, "Rows | None", list["Rows"]]]:
    """Whole rows from one flat index to another, a block at a time.

    Yields:
        The flat index of the first, the base's rows where there is one, and the other inputs';
        with a base, these are differences from it.
    """
    columns = columns_of(inputs.shape)
    for index in range(inputs.count):
        inputs.stored(index, start, stop)
    for low, high in spans_of(stop - start, max(1, BLOCK // columns) * columns):
        vectors = [inputs.block(i, low, high).reshape(-1, columns) for i in range(inputs.count)]
        origin = vectors.pop(0) if based else None
        if origin is not None:
            for vector in vectors:
                vector -= origin
        yield start + low, origin, vectors


def _combine(
    origin: "Rows | None", vectors: list["Rows"], shares: "NDArray[np.float64]", out: "Values"
) -> None:
    """Fill the first of a span's values with the weighted sum of rows, which are overwritten."""
    for vector, share in zip(vectors, shares, strict=True):
        vector *= share
    total, *others = vectors if origin is None else (*vectors, origin)
    for vector in others:
        total += vector
    out[: total.size] = total.reshape(-1)


def _grams(vectors: list["Rows"], sums: Callable[["Rows"], "Values"]) -> "NDArray[np.float64]":
    """(vectors, n, n) dot products of the n inputs, by a function that sums up elements."""
    import numpy as np

    products = [
        [sums(left * right) for right in vectors[: i + 1]] for i, left in enumerate(vectors)
    ]
    count = len(vectors)
    grams = np.empty((len(products[0][0]), count, count))
    for i, row in enumerate(products):
        for j, product in enumerate(row):
            grams[:, i, j] = grams[:, j, i] = product
    return grams


def _grams_of_columns(inputs: Inputs, number: int, *, based: bool) -> "NDArray[np.float64]":
    """(columns, n, n) dot products of one matrix of a stack: a pass over it."""
    import numpy as np

    columns = columns_of(inputs.shape)
    matrix = columns * inputs.shape[-2]
    count = inputs.count - based
    grams = np.zeros((columns, count, count))
    for low, high in spans_of(matrix, rows_at_a_time(inputs.shape)):
        start = number * matrix
        for _, _, vectors in _some_rows(inputs, start + low, start + high, based=based):
            grams += _grams(vectors, lambda products: np.add.reduce(products, axis=0))
    return grams


def _sums_of_rows(products: "Rows") -> "Values":
    """(rows,) sums of rows, which are overwritten."""
    columns = products.shape[1]
    # Halves are added element by element: the order of a sum is no library's choice.
    while columns > 1:
        half = columns // 2
        products[:, :half] += products[:, columns - half : columns]
        columns -= half
    return products[:, 0]
