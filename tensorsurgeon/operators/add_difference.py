"""The difference of two models added to a third."""

from typing import Annotated, ClassVar

from pydantic import Field

from tensorsurgeon.operators.families import Coefficients, SumOperator
from tensorsurgeon.recipe import Expression
from tensorsurgeon.recipe.schedule import AnySchedule, Schedule


class AddDifference(SumOperator):
    """A model plus alpha times the difference of two others.

    With `plus` a chat model and `minus` its base that is a chat vector (Huang et al. 2023,
    arXiv:2310.04799); with `model` and `plus` an aligned model and `minus` what it was aligned
    from, an extrapolation as in ExPO (Zheng et al. 2024, arXiv:2404.16792).
    """

    operator: ClassVar[str] = "add_difference"
    example: ClassVar[str] = "{add_difference: {model: a, plus: b, minus: base, alpha: 0.5}}"

    model: Annotated[Expression, Field(description="the model that is added to")]
    plus: Annotated[
        Expression, Field(description="the model whose difference from `minus` is added")
    ]
    minus: Annotated[Expression, Field(description="the model that `plus` is compared with")]
    alpha: AnySchedule = Field(
        default=Schedule.constant(1.0), description="factor of the difference"
    )

    def coefficients(self, alpha: float) -> Coefficients:
        """1, alpha and -alpha."""
        return Coefficients((1.0, alpha, -alpha))
