"""Weighted averages of any number of models."""

from typing import ClassVar

from pydantic import Field, StrictBool

from tensorsurgeon.operators.families import Coefficients, SumOperator, Weighted
from tensorsurgeon.operators.weights import normalized


class Linear(Weighted, SumOperator):
    """A weighted average of models, as in model soups (Wortsman et al. 2022, arXiv:2203.05482).

    A model whose weight is 0 at a tensor is not read for it.
    """

    operator: ClassVar[str] = "linear"
    example: ClassVar[str] = "{linear: {models: [a, b, c], weights: [0.5, 0.3, 0.2]}}"

    normalize: StrictBool = Field(default=True, description="divide the weights by their sum")

    def is_idempotent(self) -> bool:
        """Weights that sum to one give a model back."""
        return self.normalize

    def coefficients(self, weights: tuple[float, ...]) -> Coefficients:
        """The weights themselves, or divided by their sum (exactly rounded, float64).

        Raises:
            RecipeError: normalised weights that sum to zero.
        """
        return Coefficients(normalized(weights, self.operator) if self.normalize else weights)
