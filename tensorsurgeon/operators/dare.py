"""Task vectors of which a random part is kept."""

import math
from typing import Any, ClassVar

from pydantic import Field

from tensorsurgeon.operators.per_model import PerModelShare
from tensorsurgeon.operators.pruning import AtRandom, ByRank, Pruning
from tensorsurgeon.operators.streaming import Inputs
from tensorsurgeon.operators.task_vectors import Rescale, TaskVectors
from tensorsurgeon.recipe import Schedule
from tensorsurgeon.specs import SPAN


class _Dare(TaskVectors):
    density: PerModelShare = Field(
        default=(Schedule.constant(1.0),),
        description="probability that an element is kept; 1 keeps all",
    )
    rescale: Rescale = Field(
        default="l1",
        description="multiply what is kept by 1 / density, as the paper has it, or so that its "
        "magnitudes sum up to those of all (l1)",
    )

    def bytes_held(self, shape: tuple[int, ...], count: int) -> int:
        """A random word for each element of a span, and a model."""
        return 4 * (count - 1) * min(SPAN, math.prod(shape))

    def prunings(self, inputs: Inputs, density: tuple[float, ...], **_: Any) -> list[Pruning]:
        """Random elements of each model."""
        return [
            ByRank() if share >= 1 else AtRandom(inputs, i + 1, share)
            for i, share in enumerate(density)
        ]


class DareLinear(_Dare):
    """DARE: random elements dropped, the others scaled up (Yu et al. 2024, arXiv:2311.03099).

    Each element of a difference from the base is kept with the probability density. The paper then
    multiplies it by 1 / density, which is `rescale: density`; by default the sum of magnitudes
    stays what it was, as in mergekit. Which elements are kept follows from the recipe's seed, the
    tensor, the model and the element's flat index alone.
    """

    operator: ClassVar[str] = "dare_linear"
    example: ClassVar[str] = (
        "{dare_linear: {base: base, models: [a, b], density: 0.1, rescale: density}}"
    )


class DareTies(_Dare):
    """DARE with the elected signs of TIES (Yu et al. 2024, arXiv:2311.03099).

    What is kept of each difference from the base is as in `dare_linear`; signs are elected, and
    models that agree are merged, as in `ties`.
    """

    operator: ClassVar[str] = "dare_ties"
    example: ClassVar[str] = (
        "{dare_ties: {base: base, models: [a, b], density: {each: [0.5, 0.3]}}}"
    )
    elected: ClassVar[bool] = True
