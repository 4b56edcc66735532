"""The point between a base and the mean of its tuned models that is nearest to their centre."""

import math
from typing import Annotated, ClassVar

from pydantic import Field, StrictBool

from tensorsurgeon.operators.families import (
    Base,
    Coefficients,
    GeometricOperator,
    Gram,
    MergeOperator,
)
from tensorsurgeon.operators.rowwise import ByVector
from tensorsurgeon.operators.spans import directions
from tensorsurgeon.recipe import Expression, Place

_SINGULAR = 1e-6
"""Size of the denominator below which there is no estimate."""


class ModelStock(GeometricOperator):
    """Model Stock: from the base to the models' mean, as far as their angles tell.

    With the mean cosine c between the N tuned models' differences from the base the share of their
    mean is t = N c / (1 + (N - 1) c), and that of the base 1 - t (Jang et al. 2024,
    arXiv:2403.19522). The paper takes c as one angle for all pairs; here it is their mean, in which
    a difference of zero counts as one at a right angle. Where c is negative, so is t.
    """

    operator: ClassVar[str] = "model_stock"
    example: ClassVar[str] = "{model_stock: {base: base, models: [a, b]}}"

    models: Annotated[
        tuple[Expression, ...], Field(min_length=2, description="the tuned models, two or more")
    ]
    base: Base
    filter_wise: StrictBool = Field(
        default=False,
        description="decide how far to go for each row, not for the tensor as a whole",
    )

    def for_tensor(self, place: Place, shape: tuple[int, ...]) -> MergeOperator:
        """Another operator where each row counts for itself."""
        if not self.filter_wise:
            return self
        return ModelStockByRow.instead_of(self, place, shape, columns=False)

    def coefficients(self, gram: Gram) -> Coefficients:
        """T / N for each tuned model's difference from the base.

        Args:
            gram: (n, n) float64 dot products of the differences.

        Returns:
            Zeros, with a note, where the differences cancel out so that there is no estimate.
        """
        count = len(gram)
        _, cosines = directions(gram)
        pairs = [cosines[i][j] for i in range(count) for j in range(i + 1, count)]
        cosine = math.fsum(max(-1.0, min(1.0, pair)) for pair in pairs) / len(pairs)
        below = 1.0 + (count - 1) * cosine
        if abs(below) < _SINGULAR:
            return Coefficients((0.0,) * count, "the models oppose each other: the base is kept")
        note = "the models oppose each other: gone past the base, away from their mean"
        return Coefficients((cosine / below,) * count, note if cosine < 0.0 else "")


class ModelStockByRow(ByVector):
    """Model Stock of rows."""

    operator: ClassVar[str] = "model_stock"
