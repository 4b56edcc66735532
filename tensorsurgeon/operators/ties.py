"""Task vectors trimmed to their largest elements, with elected signs."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from tensorsurgeon.operators.per_model import PerModelShare
from tensorsurgeon.operators.pruning import (
    ByRank,
    Outlying,
    Pruning,
    Thresholds,
    by_rank,
    by_rank_over_model,
    bytes_to_rank,
)
from tensorsurgeon.operators.streaming import EachTensor, Inputs
from tensorsurgeon.operators.task_vectors import TaskVectors
from tensorsurgeon.recipe import Schedule


class Ties(TaskVectors):
    """TIES: trim, elect signs, merge those that agree (Yadav et al. 2023, arXiv:2306.01708).

    Trim: of each tensor's difference from the base exactly max(1, floor(density * n)) of the n
    elements are kept, those of the largest magnitude; of equal ones those with the lowest flat
    index. Elect: the sign of an element is that of the weighted sum of what was kept of it, where 0
    counts as positive. Merge: only those models count whose weighted element has that sign, and
    `normalize` divides by the sum of their weights, or by 1 where that is 0.

    With `scope: model`, as in the paper, there is one threshold for all tensors, of equal elements
    those of the first tensor come first, and n counts the elements of all tensors of the result
    that are made here: a layer that a stack takes twice counts once, one that it leaves out does
    not count. The paper keeps 20 % and has no weights.
    """

    operator: ClassVar[str] = "ties"
    example: ClassVar[str] = "{ties: {base: base, models: [a, b], density: 0.2}}"
    counts: ClassVar[int] = 2
    elected: ClassVar[bool] = True

    density: PerModelShare = Field(
        default=(Schedule.constant(1.0),),
        description="share of the elements that are kept; 1 keeps all",
    )
    normalize: StrictBool = Field(
        default=True, description="divide by the weights of those whose sign was elected"
    )
    rescale: Literal["none", "l1"] = Field(
        default="none",
        description="l1: multiply what is kept so that its magnitudes sum up to those of all",
    )

    scope: Literal["tensor", "model"] = Field(
        default="tensor",
        description="whether the largest are sought in each tensor, or in the whole model",
    )

    @model_validator(mode="after")
    def _one_density_for_a_model(self) -> Self:
        if self.scope == "model" and any(density.number is None for density in self.density):
            raise PydanticCustomError(
                "scope", "with 'scope: model' density is a number, the same for all tensors", {}
            )
        return self

    def surveys(self) -> bool:
        """Whether thresholds are those of the model."""
        return self.scope == "model"

    def survey(self, elements: int, tensors: int, each: EachTensor) -> list[tuple[Thresholds, ...]]:
        """The thresholds of each model, and each tensor's share of what lies at them."""
        kept = [_largest(elements, density.number or 0.0) for density in self.density]
        return by_rank_over_model(each, kept, tensors)

    def kept(
        self, weights: tuple[float, ...], lambda_: float, **parameters: Any
    ) -> tuple[int, ...]:
        """The models that have a weight; all of them, where they were surveyed."""
        found = super().kept(weights, lambda_, **parameters)
        return tuple(range(len(weights))) if found and self.surveys() else found

    def times_read(self, density: tuple[float, ...], **parameters: Any) -> int:
        """Once more where there is a survey."""
        found = super().times_read(density, **parameters)
        return found + (self.surveys() and found > 1)

    def times_surveyed(self, density: tuple[float, ...], **parameters: Any) -> int:
        """As often as is counted, and once more."""
        surveyed = self.surveys() and self.times_read(density, **parameters) > 1
        return self.counts + 1 if surveyed else 0

    def bytes_held(self, shape: tuple[int, ...], count: int) -> int:  # noqa: ARG002
        """Counts of ranks."""
        return bytes_to_rank(count - 1)

    def prunings(self, inputs: Inputs, density: tuple[float, ...], **_: Any) -> list[Pruning]:
        """The largest elements of each model."""
        if self.surveys():
            return [ByRank(*found) for found in inputs.surveyed]
        return by_rank(inputs, [_largest(inputs.elements, share) for share in density])


def _largest(elements: int, density: float) -> Outlying | None:
    """How many of them are kept, none of the largest left out; None for all."""
    if density >= 1:
        return None
    return 0, max(1, int(density * elements)) if density > 0 else 0
