"""Task vectors added to a base."""

from typing import ClassVar

from pydantic import Field, StrictBool

from tensorsurgeon.operators.families import Base, Coefficients, SumOperator, Tuned, Weighted
from tensorsurgeon.operators.weights import normalized
from tensorsurgeon.recipe.schedule import AnySchedule, Schedule


class TaskArithmetic(Weighted, SumOperator):
    """The base plus a weighted sum of what tuning changed (Ilharco et al. 2022, arXiv:2212.04089).

    base + lambda * sum of weight * (model - base). A negative weight forgets a task. A model whose
    weight is 0 at a tensor is not read for it.
    """

    operator: ClassVar[str] = "task_arithmetic"
    example: ClassVar[str] = "{task_arithmetic: {base: base, models: [a, b], weights: [0.6, -0.3]}}"

    base: Base
    models: Tuned
    normalize: StrictBool = Field(default=False, description="divide the weights by their sum")
    lambda_: AnySchedule = Field(
        default=Schedule.constant(1.0), alias="lambda", description="factor of the whole sum"
    )

    def coefficients(self, weights: tuple[float, ...], lambda_: float) -> Coefficients:
        """Lambda times the weights, which are first divided by their sum where that is asked for.

        Raises:
            RecipeError: normalised weights that sum to zero.
        """
        shares = normalized(weights, self.operator) if self.normalize else weights
        return Coefficients(tuple(lambda_ * share for share in shares))
