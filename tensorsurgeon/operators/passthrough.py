"""One model, its tensors multiplied by a factor."""

from typing import Annotated, ClassVar

from pydantic import Field

from tensorsurgeon.operators.families import Coefficients, SumOperator
from tensorsurgeon.recipe import Expression
from tensorsurgeon.recipe.schedule import AnySchedule, Schedule


class Passthrough(SumOperator):
    """A model as it is, or with some of its tensors scaled.

    With 0 for what writes to the residual stream, as `*.o_proj.weight` and `*.down_proj.weight`, a
    layer does nothing. A tensor whose factor is 1 is copied.
    """

    operator: ClassVar[str] = "passthrough"
    example: ClassVar[str] = (
        '{passthrough: {model: a, scale: [{match: "*.o_proj.weight", value: 0.5}, 1]}}'
    )

    model: Annotated[Expression, Field(description="the model")]
    scale: AnySchedule = Field(
        default=Schedule.constant(1.0), description="what a tensor's elements are multiplied by"
    )

    def coefficients(self, scale: float) -> Coefficients:
        """The factor."""
        return Coefficients((scale,))
