"""Task matrices summed up, and made alike in all directions."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from tensorsurgeon.operators.matrices import MatrixOperator, bytes_to_factor, singular

if TYPE_CHECKING:
    from tensorsurgeon.operators.matrices import Matrix


class IsoC(MatrixOperator):
    """Iso-C: the sum of task matrices, with all its singular values made equal.

    Isotropic merging in the common subspace (Marczak et al. 2025, arXiv:2502.04959): the task
    matrices' sum U S V^T becomes s U V^T, with s the mean of its singular values. Those
    that are rounding alone are left out of U and V and of the mean, since their directions are
    arbitrary. Tensors that are no matrices of a layer get the mean of the task vectors, embeddings
    among them. `lambda` is the paper's alpha.
    """

    operator: ClassVar[str] = "iso_c"
    example: ClassVar[str] = "{iso_c: {base: base, models: [a, b, c]}}"

    def update(
        self,
        deltas: Iterator["Matrix"],
        shape: tuple[int, int],  # noqa: ARG002
        count: int,  # noqa: ARG002
    ) -> "Matrix":
        """The isotropic matrix."""
        left, values, right = singular(_summed(deltas))
        update = left @ right
        if len(values):
            update *= values.mean()
        return update

    def bytes_held(self, shape: tuple[int, ...], count: int) -> int:  # noqa: ARG002
        """The base, the sum, and what factoring that takes."""
        return 16 * shape[-2] * shape[-1] + bytes_to_factor(shape)


def _summed(deltas: Iterator["Matrix"]) -> "Matrix":
    total = next(deltas)
    for delta in deltas:
        total += delta
    return total
