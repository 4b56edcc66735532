"""Of all task vectors the element that is the largest."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tensorsurgeon.operators.elementwise import Elementwise, by_task_vectors
from tensorsurgeon.operators.streaming import Inputs, Read
from tensorsurgeon.recipe.schedule import AnySchedule, Schedule

if TYPE_CHECKING:
    from tensorsurgeon.kernels import Values


class Magmax(Elementwise):
    """MagMax: each element from the model that changed it the most.

    base + lambda * the difference of the largest magnitude (Marczak et al. 2024,
    arXiv:2407.06322); of equal magnitudes that of the first model, where the authors' program takes
    the last.
    """

    operator: ClassVar[str] = "magmax"
    example: ClassVar[str] = "{magmax: {base: base, models: [a, b], lambda: 0.8}}"

    lambda_: AnySchedule = Field(
        default=Schedule.constant(1.0), alias="lambda", description="factor of what is added"
    )

    def kept(self, lambda_: float) -> tuple[int, ...] | None:
        """None where nothing is added."""
        return None if lambda_ else ()

    def begin(self, inputs: Inputs, lambda_: float) -> Read:
        """Lambda times the largest of each element's differences."""
        return by_task_vectors(inputs, lambda vectors: lambda_ * _largest(vectors))


def _largest(vectors: list["Values"]) -> "Values":
    import numpy as np

    found, *others = vectors
    size = np.abs(found)
    for vector in others:
        magnitude = np.abs(vector)
        found = np.where(magnitude > size, vector, found)
        np.maximum(magnitude, size, out=size)
    return found
