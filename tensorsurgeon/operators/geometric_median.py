"""The geometric median: the point whose distances to the models have the least sum."""

import math
from typing import Annotated, ClassVar

from pydantic import Field

from tensorsurgeon.operators.families import Coefficients, GeometricOperator, Gram, Weighted
from tensorsurgeon.operators.spans import dot, norm, plus, scaled
from tensorsurgeon.operators.weights import normalized


class GeometricMedian(Weighted, GeometricOperator):
    """The weighted geometric median of each tensor, which one bad model does not move far.

    Weiszfeld's iteration (1937) with the step of Vardi and Zhang (2000) where it meets a model, on
    dot products of the inputs alone. Used for merging by Fu et al. (2024).
    """

    operator: ClassVar[str] = "geometric_median"
    idempotent: ClassVar[bool] = True

    max_iter: Annotated[int, Field(ge=1, strict=True)] = Field(
        default=100, description="most steps of the iteration"
    )
    tol: Annotated[float, Field(gt=0)] = Field(
        default=1e-7, description="length of a step, relative to the models' spread, at the end"
    )

    def coefficients(self, gram: Gram, weights: tuple[float, ...]) -> Coefficients:
        """Weights of the inputs, which sum to one.

        Args:
            gram: (n, n) float64 dot products of the flattened tensors.
            weights: (n,) of the inputs.

        Raises:
            RecipeError: the weights sum to zero.
        """
        shares = normalized(weights, self.operator)
        here = shares
        spread = max(_distances(gram, here))
        if spread == 0.0:
            return Coefficients(shares)
        for _ in range(self.max_iter):
            there = _step(gram, shares, here, spread)
            moved = norm(gram, plus(there, here, -1.0))
            here = there
            if moved <= self.tol * spread:
                return Coefficients(here)
        return Coefficients(here, f"the median was not found in {self.max_iter} steps")


def _step(
    gram: Gram, shares: tuple[float, ...], here: tuple[float, ...], spread: float
) -> tuple[float, ...]:
    """One step towards the median."""
    distances = _distances(gram, here)
    met = [distance <= 1e-12 * spread for distance in distances]
    pulls = [
        0.0 if at else share / distance
        for share, distance, at in zip(shares, distances, met, strict=True)
    ]
    total = math.fsum(pulls)
    if total == 0.0:
        return here
    there = scaled(pulls, 1.0 / total)
    weight = math.fsum(share for share, at in zip(shares, met, strict=True) if at)
    if weight == 0.0:
        return there
    # At a model the others have to pull harder than it holds.
    pull = total * norm(gram, plus(there, here, -1.0))
    kept = 1.0 if pull == 0.0 else min(1.0, weight / pull)
    return plus(scaled(there, 1.0 - kept), here, kept)


def _distances(gram: Gram, here: tuple[float, ...]) -> list[float]:
    """From a sum of the inputs to each of them."""
    count = len(gram)
    units = [tuple(float(i == j) for j in range(count)) for i in range(count)]
    square = dot(gram, here, here)
    return [
        math.sqrt(max(0.0, square - 2.0 * dot(gram, here, unit) + gram[i][i]))
        for i, unit in enumerate(units)
    ]
