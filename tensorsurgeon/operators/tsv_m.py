"""The main directions of each task matrix, made orthogonal to those of the others."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from tensorsurgeon.operators.matrices import MatrixOperator, bytes_to_factor, singular

if TYPE_CHECKING:
    from tensorsurgeon.operators.matrices import Matrix


class TsvM(MatrixOperator):
    """TSV-Merge: each task's main singular directions, orthogonal to the others'.

    Task Singular Vectors (Gargiulo et al. 2024, arXiv:2412.00081). Of each of T task matrices
    (m, n) the floor(min(m, n) / T) largest singular components are kept, and one at least. The left
    vectors of all tasks together become the nearest orthonormal ones, the right ones as well, and
    the update is their product with the singular values in between. Directions in which all of them
    together have no extent but rounding are left out, so that one task given T times comes back as
    its kept components. Tensors that are no matrices of a layer get the mean of the task vectors,
    embeddings among them. `lambda` is the paper's alpha.
    """

    operator: ClassVar[str] = "tsv_m"
    example: ClassVar[str] = "{tsv_m: {base: base, models: [a, b, c]}}"

    def update(self, deltas: Iterator["Matrix"], shape: tuple[int, int], count: int) -> "Matrix":
        """The sum of the kept components along orthogonal directions."""
        import numpy as np

        most = max(1, min(shape) // count)
        left = np.empty((shape[0], most * count))
        right = np.empty((most * count, shape[1]))
        values = np.empty(most * count)
        found = 0

        def keep(delta: "Matrix") -> None:
            nonlocal found
            own_left, own, own_right = singular(delta, most)
            end = found + len(own)
            left[:, found:end], values[found:end], right[found:end] = own_left, own, own_right
            found = end

        for delta in deltas:
            keep(delta)
        across = _orthonormal(left[:, :found])
        across *= values[:found]
        return across @ _orthonormal(right[:found])

    def bytes_held(self, shape: tuple[int, ...], count: int) -> int:
        """The base, a task matrix, all kept components, and what factoring one matrix takes."""
        rows, columns = shape[-2:]
        kept = (count - 1) * max(1, min(rows, columns) // (count - 1))
        held = 2 * rows * columns + kept * (rows + columns + 1)
        return 8 * held + bytes_to_factor(shape)


def _orthonormal(vectors: "Matrix") -> "Matrix":
    """The nearest matrix whose singular values are one, where they are not zero."""
    left, _, right = singular(vectors)
    return left @ right
