"""Weighted averages of any number of models."""

import math
from typing import ClassVar, Self

from pydantic import Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from tensorsurgeon.errors import RecipeError
from tensorsurgeon.operators.families import Coefficients, WeightedOperator
from tensorsurgeon.recipe.schedule import AnySchedule, Schedule


class Linear(WeightedOperator):
    """A weighted average: model soups (Wortsman et al. 2022, arXiv:2203.05482).

    A model whose weight is 0 at a tensor is not read for it.
    """

    operator: ClassVar[str] = "linear"

    weights: tuple[AnySchedule, ...] = Field(
        default=(), description="one for each model, any numbers; all alike by default"
    )
    normalize: StrictBool = Field(default=True, description="divide the weights by their sum")

    @model_validator(mode="after")
    def _one_weight_a_model(self) -> Self:
        if not self.weights:
            equal = tuple(Schedule.constant(1.0) for _ in self.models)
            object.__setattr__(self, "weights", equal)
        if len(self.weights) != len(self.models):
            raise PydanticCustomError(
                "weights",
                "there are {models} models and {weights} weights",
                {"models": len(self.models), "weights": len(self.weights)},
            )
        return self

    def is_idempotent(self) -> bool:
        """Weights that sum to one give a model back."""
        return self.normalize

    def coefficients(self, weights: tuple[float, ...]) -> Coefficients:
        """The weights themselves, or divided by their sum (exactly rounded, float64).

        Raises:
            RecipeError: normalised weights that sum to zero.
        """
        if not self.normalize:
            return Coefficients(weights)
        total = math.fsum(weights)
        if total == 0:
            listed = ", ".join(f"{weight:g}" for weight in weights)
            raise RecipeError(
                f"'linear': weights {listed} sum to zero and cannot be normalized",
                fix="change a weight, or set 'normalize: false'",
            )
        return Coefficients(tuple(weight / total for weight in weights))
