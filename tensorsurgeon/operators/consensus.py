"""The sum of task vectors where enough of the tasks rely on it."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from tensorsurgeon.operators.elementwise import Elementwise, by_task_vectors
from tensorsurgeon.operators.families import Weighted
from tensorsurgeon.operators.per_model import PerModel, one_for_each
from tensorsurgeon.operators.streaming import Inputs, Read
from tensorsurgeon.recipe import Expression, Schedule
from tensorsurgeon.recipe.schedule import AnySchedule

if TYPE_CHECKING:
    from tensorsurgeon.kernels import Values


class Consensus(Weighted, Elementwise):
    """Consensus: the sum of task vectors where enough of the tasks rely on it.

    Consensus Merging by TALL masks (Wang et al. 2024, arXiv:2405.07813). With tau_t the weighted
    difference of model t from the base and tau the sum of them all, an element is in the mask of t
    where |tau_t| >= mask_lambda * |tau - tau_t|. What is added to the base is alpha * tau, where k
    masks or more have the element. The paper has no weights; it chooses lambda_t for each task from
    0.2 to 0.6, and alpha, by measuring.
    """

    operator: ClassVar[str] = "consensus"
    example: ClassVar[str] = "{consensus: {base: base, models: [a, b, c], alpha: 0.3}}"

    models: Annotated[
        tuple[Expression, ...], Field(min_length=2, description="the tuned models, two or more")
    ]
    k: Annotated[int, Field(ge=0, strict=True)] = Field(
        default=2, description="in how many masks an element has to be; 0 keeps all"
    )
    mask_lambda: Annotated[tuple[Schedule, ...], PerModel(least=0.0)] = Field(
        default=(Schedule.constant(0.4),),
        description="the larger, the fewer elements a mask has; the paper's lambda_t",
    )
    alpha: AnySchedule = Field(
        default=Schedule.constant(1.0), description="factor of the sum that is added"
    )

    @model_validator(mode="after")
    def _fits_the_models(self) -> Self:
        count = len(self.models)
        object.__setattr__(
            self, "mask_lambda", one_for_each(self.mask_lambda, count, "mask_lambda")
        )
        if self.k > count:
            raise PydanticCustomError(
                "consensus",
                "k is {k} and there are {models} models: no element is in as many masks",
                {"k": self.k, "models": count},
            )
        return self

    def kept(self, weights: tuple[float, ...], alpha: float, **_: Any) -> tuple[int, ...]:
        """The models that have a weight: the mask of another is empty wherever the sum is not."""
        return tuple(i for i, weight in enumerate(weights) if weight) if alpha else ()

    def begin(
        self,
        inputs: Inputs,
        weights: tuple[float, ...],
        mask_lambda: tuple[float, ...],
        alpha: float,
    ) -> Read:
        """Alpha times the sum, where enough masks have it."""

        def agreed(vectors: list["Values"]) -> "Values":
            import numpy as np

            for weight, vector in zip(weights, vectors, strict=True):
                np.multiply(vector, weight, out=vector)
            total = sum(vectors[1:], start=vectors[0])
            masks = np.zeros(len(total), np.int64)
            for limit, vector in zip(mask_lambda, vectors, strict=True):
                masks += np.abs(vector) >= limit * np.abs(total - vector)
            return alpha * total * (masks >= self.k)

        return by_task_vectors(inputs, agreed)
