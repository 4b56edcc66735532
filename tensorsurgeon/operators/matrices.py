"""Methods that factor task matrices: each is held in float64, several times over."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tensorsurgeon.operators.families import Base, MergeOperator, Tuned
from tensorsurgeon.operators.streaming import BLOCK, Inputs, Read, StreamedOperator, spans_of
from tensorsurgeon.operators.task_arithmetic import TaskArithmetic
from tensorsurgeon.recipe import Place, Schedule
from tensorsurgeon.recipe.schedule import AnySchedule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tensorsurgeon.kernels import Values

    Matrix = NDArray[np.float64]
    """(m, n) one matrix of one input."""

_TOLD_BY_GRAM = 2e-3
"""Smallest singular value, as a share of the largest, that squares tell to 1e-10 and better."""

_KEPT = 60_000_000
"""Most bytes that LAPACK, and the C library of freed matrices, keep for themselves (measured)."""


class MatrixOperator(StreamedOperator):
    """A base plus lambda times what is made of the task matrices, which are factored for it.

    Matrices are the tensors of a layer that have two axes, and each that the last two axes of a
    stack of three are. All others are vectors of some kind, and so are embedding and output head,
    whose rows are tokens: their task vectors are averaged. The last digits in float64 depend on
    numpy's LAPACK and on the number of its threads, which is one where a command runs it.
    """

    base: Base
    models: Tuned
    lambda_: AnySchedule = Field(
        default=Schedule.constant(1.0), alias="lambda", description="factor of the whole update"
    )

    @abstractmethod
    def update(self, deltas: Iterator["Matrix"], shape: tuple[int, int], count: int) -> "Matrix":
        """What is added to the base, of one matrix.

        Args:
            deltas: the models' differences from the base, (m, n) float64, finite, each to be had
                once and to be overwritten.
            shape: (m, n).
            count: how many there are.
        """

    def for_tensor(self, place: Place, shape: tuple[int, ...]) -> MergeOperator:
        """The mean of the task vectors where a tensor is no matrix."""
        if isinstance(place.layer, int) and len(shape) in (2, 3) and min(shape[-2:]) > 1:
            return self
        return TaskArithmetic.model_validate(
            {"base": self.base, "models": self.models, "normalize": True, "lambda": self.lambda_}
        )

    def kept(self, lambda_: float, **_: Any) -> tuple[int, ...] | None:
        """No model counts where nothing is added."""
        return None if lambda_ else ()

    def begin(self, inputs: Inputs, lambda_: float, **_: Any) -> Read:
        """Make a matrix when its first element is asked for."""
        import numpy as np

        shape = (inputs.shape[-2], inputs.shape[-1])
        size = shape[0] * shape[1]
        made: dict[int, Values] = {}

        def read(start: int, out: "Values") -> None:
            done = 0
            while done < len(out):
                number, at = divmod(start + done, size)
                if number not in made:
                    made.clear()
                    made[number] = self._merged(inputs, number * size, shape, lambda_)
                count = min(size - at, len(out) - done)
                out[done : done + count] = made[number][at : at + count]
                done += count

        assert np.prod(inputs.shape, dtype=np.int64) % size == 0
        return read

    def _merged(
        self, inputs: Inputs, start: int, shape: tuple[int, int], lambda_: float
    ) -> "Values":
        """One matrix of the result; a NaN or an infinity in an input makes it NaN."""
        import numpy as np

        base = _matrix(inputs, 0, start, shape)
        finite = True

        def deltas() -> Iterator["Matrix"]:
            nonlocal finite
            for index in range(1, inputs.count):
                delta = _matrix(inputs, index, start, shape)
                delta -= base
                if not np.isfinite(delta.min()) or not np.isfinite(delta.max()):
                    finite = False
                    delta.fill(0.0)
                yield delta

        update = self.update(deltas(), shape, inputs.count - 1)
        update *= lambda_ if finite else np.nan
        update += base
        return update.reshape(-1)


def bytes_to_factor(shape: tuple[int, ...]) -> int:
    """Bytes in use while a matrix is factored, beside the matrix itself.

    They are a copy, two of each factor, and what LAPACK's `gesdd` works in.
    """
    short, long = sorted(shape[-2:])
    held = 8 * (3 * short * long + 6 * short * short)
    return held + min(_KEPT, 48 * short * long)


def singular(matrix: "Matrix", most: int | None = None) -> tuple["Matrix", "Values", "Matrix"]:
    """The singular value decomposition of a matrix of finite values, as far as it has rank.

    Values that are rounding alone beside the largest are left out: their vectors are arbitrary.

    Args:
        matrix: (m, n).
        most: largest number of components.

    Returns:
        (m, k) left vectors, (k,) values from the largest on, and (k, n) right vectors.
    """
    import numpy as np

    rows, columns = matrix.shape
    most = min(rows, columns) if most is None else min(most, rows, columns)
    if not matrix.any():
        return np.empty((rows, 0)), np.empty(0), np.empty((0, columns))
    if rows > columns:
        right, values, left = singular(matrix.T, most)
        return left.T, values, right.T
    # A square matrix nearly always has a singular value that squares would lose.
    if (most < rows or rows < columns) and (found := _by_gram(matrix, most)):
        return found
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    rounding = values[0] * columns * np.finfo(np.float64).eps
    most = min(most, int(np.count_nonzero(values > rounding)))
    return left[:, :most], values[:most], right[:most]


def _by_gram(matrix: "Matrix", most: int) -> tuple["Matrix", "Values", "Matrix"] | None:
    """The same of a matrix no higher than wide, in a third of the time.

    Squares lose half the digits of small singular values: None where that could be noticed.
    """
    import numpy as np

    gram = matrix @ matrix.T
    if not np.isfinite(gram).all():
        return None
    squares, vectors = np.linalg.eigh(gram)
    values = np.sqrt(np.maximum(squares[::-1][:most], 0.0))
    if not values[-1] > _TOLD_BY_GRAM * values[0]:
        return None
    left = vectors[:, ::-1][:, :most]
    right = left.T @ matrix
    right /= values[:, None]
    return left, values, right


def _matrix(inputs: Inputs, index: int, start: int, shape: tuple[int, int]) -> "Matrix":
    """One input's matrix from a flat index on."""
    import numpy as np

    values = np.empty(shape)
    flat = values.reshape(-1)
    for low, high in spans_of(flat.size):
        inputs.stored(index, start + low, start + high)
        for first, last in spans_of(high - low, BLOCK):
            flat[low + first : low + last] = inputs.block(index, first, last)
    return values
