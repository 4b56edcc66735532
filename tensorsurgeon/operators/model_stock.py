"""The point between a base and the mean of its tuned models that is nearest to their centre."""

import math
from typing import Annotated, ClassVar

from pydantic import Field

from tensorsurgeon.operators.families import Base, Coefficients, GeometricOperator, Gram
from tensorsurgeon.operators.spans import directions
from tensorsurgeon.recipe import Expression

_SINGULAR = 1e-6
"""Size of the denominator below which there is no estimate."""


class ModelStock(GeometricOperator):
    """Model Stock: how far to go from the base to the mean of the tuned models, by their angle.

    With the mean cosine c between the N tuned models' differences from the base the share of their
    mean is t = N c / (1 + (N - 1) c), and that of the base 1 - t (Jang et al. 2024,
    arXiv:2403.19522). The paper takes c as one angle for all pairs; here it is their mean.
    """

    operator: ClassVar[str] = "model_stock"

    models: Annotated[
        tuple[Expression, ...], Field(min_length=2, description="the tuned models, two or more")
    ]
    base: Base

    def coefficients(self, gram: Gram) -> Coefficients:
        """T / N for each tuned model's difference from the base.

        Args:
            gram: (n, n) float64 dot products of the differences.

        Returns:
            Zeros, with a note, where the differences point away from each other so that there is
            no estimate.
        """
        count = len(gram)
        _, cosines = directions(gram)
        pairs = [cosines[i][j] for i in range(count) for j in range(i + 1, count)]
        cosine = math.fsum(max(-1.0, min(1.0, pair)) for pair in pairs) / len(pairs)
        below = 1.0 + (count - 1) * cosine
        if abs(below) < _SINGULAR:
            return Coefficients((0.0,) * count, "the models oppose each other: the base is kept")
        return Coefficients((cosine / below,) * count)
