"""Task vectors whose elements are kept by chance, the larger ones more likely."""

import math
from typing import Any, ClassVar, Literal

from pydantic import Field, StrictBool

from tensorsurgeon.errors import RecipeError
from tensorsurgeon.operators.per_model import PerModelShare
from tensorsurgeon.operators.pruning import ByRank, ByRowRank, Pruning
from tensorsurgeon.operators.streaming import Inputs, columns_of, rows_at_a_time
from tensorsurgeon.operators.task_vectors import TaskVectors
from tensorsurgeon.recipe import Schedule
from tensorsurgeon.specs import SPAN

_TO_SORT = 48
"""Bytes for each element of a row while its elements are put in order: two words of 64 bits, and
what limits are reckoned in."""


class DellaLinear(TaskVectors):
    """DELLA without its election of signs: larger elements are likelier to be kept.

    In each row of a tensor's difference from the base an element is kept with a probability that
    rises evenly with the rank of its magnitude, from density - epsilon to density + epsilon; a
    vector is one row, and a row of one element has the probability density. Of equal ones the first
    in the row has the lower rank. Which elements are kept follows from the recipe's seed, the
    tensor, the model and the element's flat index alone. The paper (Deep et al. 2024,
    arXiv:2406.11617) divides each kept element by its own probability; here all are scaled alike.
    """

    operator: ClassVar[str] = "della_linear"
    example: ClassVar[str] = (
        "{della_linear: {base: base, models: [a, b], density: 0.5, epsilon: 0.2}}"
    )
    whole_rows: ClassVar[bool] = True
    each: ClassVar[tuple[str, ...]] = ("density", "epsilon")

    density: PerModelShare = Field(
        default=(Schedule.constant(1.0),),
        description="mean probability that an element is kept; 1 keeps all",
    )
    epsilon: PerModelShare = Field(
        default=(Schedule.constant(0.15),),
        description="how far the probability goes below and above that",
    )
    rescale: Literal["none", "l1"] = Field(
        default="l1",
        description="l1: multiply what is kept so that its magnitudes sum up to those of all",
    )

    def check(
        self, density: tuple[float, ...], epsilon: tuple[float, ...], **parameters: Any
    ) -> None:
        """All probabilities are such, and the weights have a sum.

        Raises:
            RecipeError: density - epsilon is not above 0, or density + epsilon not below 1; or as
                for any task vectors.
        """
        super().check(**parameters)
        for share, range_ in zip(density, epsilon, strict=True):
            if 0 < share < 1 and not range_ < min(share, 1 - share):
                raise RecipeError(
                    f"'{self.operator}': with density {share:g} and epsilon {range_:g} elements "
                    f"are kept with probabilities from {share - range_:g} to {share + range_:g}",
                    fix=f"an epsilon below {min(share, 1 - share):g}",
                )

    def prunings(
        self, inputs: Inputs, density: tuple[float, ...], epsilon: tuple[float, ...], **_: Any
    ) -> list[Pruning]:
        """Random elements of each model, by their ranks in their rows."""
        return [
            ByRank()
            if share >= 1
            else ByRowRank(inputs, i + 1, share - range_, 2 * range_)
            if share > 0
            else ByRowRank(inputs, i + 1, 0.0, 0.0)
            for i, (share, range_) in enumerate(zip(density, epsilon, strict=True))
        ]

    def bytes_held(self, shape: tuple[int, ...], count: int) -> int:
        """Some rows: of the result, of limits and words, and what sorting one takes."""
        rows = min(rows_at_a_time(shape), math.prod(shape)) * 8 * count
        columns = columns_of(shape)
        long = 8 * count * columns if columns > SPAN else 0  # no buffer has room for a row
        return rows + long + _TO_SORT * columns


class Della(DellaLinear):
    """DELLA: larger elements are likelier to be kept, then signs are elected.

    What is kept of each difference from the base is as in `della_linear`, with its departure from
    the paper (Deep et al. 2024, arXiv:2406.11617); signs are elected, and models that agree are
    merged, as in `ties`.
    """

    operator: ClassVar[str] = "della"
    example: ClassVar[str] = (
        "{della: {base: base, models: [a, b], density: 0.5, weights: [0.7, 0.3]}}"
    )
    elected: ClassVar[bool] = True

    normalize: StrictBool = Field(
        default=True, description="divide by the weights of those whose sign was elected"
    )
