"""The unified task vector of EMR-Merging."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tensorsurgeon.operators.elementwise import Elementwise, by_task_vectors
from tensorsurgeon.operators.streaming import Inputs, Read
from tensorsurgeon.recipe.schedule import AnySchedule, Schedule

if TYPE_CHECKING:
    from tensorsurgeon.kernels import Values


class Emr(Elementwise):
    """EMR: elected signs, with the largest magnitude that has the sign.

    The sign of each element is that of the sum of all differences from the base, a sum of 0
    counting as positive; its magnitude is the largest among those of that sign. EMR-Merging (Huang
    et al. 2024, arXiv:2405.17461) goes on to a mask and a factor for each task, with which this one
    vector comes near to each of the models; they make several models out of one and are no part of
    a merged checkpoint. Nor has the paper lambda.
    """

    operator: ClassVar[str] = "emr"
    example: ClassVar[str] = "{emr: {base: base, models: [a, b, c]}}"

    lambda_: AnySchedule = Field(
        default=Schedule.constant(1.0), alias="lambda", description="factor of what is added"
    )

    def kept(self, lambda_: float) -> tuple[int, ...] | None:
        """None where nothing is added."""
        return None if lambda_ else ()

    def begin(self, inputs: Inputs, lambda_: float) -> Read:
        """Lambda times the elected vector."""
        return by_task_vectors(inputs, lambda vectors: lambda_ * _elected(vectors))


def _elected(vectors: list["Values"]) -> "Values":
    import numpy as np

    first, *others = vectors
    total, highest, lowest = first.copy(), first.copy(), first
    for vector in others:
        np.add(total, vector, out=total)
        np.maximum(highest, vector, out=highest)
        np.minimum(lowest, vector, out=lowest)
    # Where a sum is positive, so is the highest of its terms.
    return np.where(total >= 0.0, highest, lowest)
