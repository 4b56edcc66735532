"""The geometric median: the point whose distances to the models have the least sum."""

import math
from typing import Annotated, ClassVar

from pydantic import Field

from tensorsurgeon.errors import RecipeError
from tensorsurgeon.operators.families import Coefficients, GeometricOperator, Gram, Weighted
from tensorsurgeon.operators.spans import norm, plus, scaled
from tensorsurgeon.operators.weights import all_on_one, normalized

_HELD = 1.0 - 1e-9
"""Pull of all others on a model, as a share of its weight, up to which it surely is the median."""


class GeometricMedian(Weighted, GeometricOperator):
    """Geometric median: the least sum of distances; one bad model moves it little.

    Weiszfeld's iteration (1937) from the weighted mean, with the step of Vardi and Zhang (2000)
    where it meets a model and their test of whether a model is the median itself. It runs on the
    dot products of the inputs alone, tensor by tensor. Pillutla et al. (2022, arXiv:1912.13445)
    average models so where some of them may be corrupt.
    """

    operator: ClassVar[str] = "geometric_median"
    example: ClassVar[str] = "{geometric_median: {models: [a, b, c]}}"
    idempotent: ClassVar[bool] = True

    max_iter: Annotated[int, Field(ge=1, strict=True)] = Field(
        default=100, description="most steps of the iteration"
    )
    tol: Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)] = Field(
        default=1e-7, description="it ends at a step of this share of the models' spread"
    )

    def foregone(self, weights: tuple[float, ...]) -> Coefficients | None:
        """The only model that has a weight, as it is.

        Raises:
            RecipeError: a weight is negative, so that no point is the nearest; or all are zero.
        """
        if min(weights) < 0.0:
            listed = ", ".join(f"{weight:g}" for weight in weights)
            raise RecipeError(
                f"'{self.operator}': weights {listed}: distances have no negative weights",
                fix="give each model a weight of 0 or more",
            )
        return all_on_one(normalized(weights, self.operator, fix=""))

    def coefficients(self, gram: Gram, weights: tuple[float, ...]) -> Coefficients:
        """Weights of the inputs, which sum to one.

        Args:
            gram: (n, n) float64 dot products of the flattened tensors.
            weights: (n,) of the inputs, none negative.
        """
        shares = here = normalized(weights, self.operator, fix="")
        offsets = _offsets(gram)
        spread = max(_distances(offsets, here))
        for i in range(len(shares)):
            if _is_median(offsets, shares, i):
                return Coefficients(_only(i, len(shares)))
        for _ in range(self.max_iter):
            there = _step(offsets, shares, here, spread)
            moved = norm(offsets, plus(there, here, -1.0))
            here = there
            if moved <= self.tol * spread:
                return Coefficients(here)
        return Coefficients(here, f"the median was not found in {self.max_iter} steps")


def _offsets(gram: Gram) -> Gram:
    """(n, n) dot products of the inputs' differences from the first one.

    The median of inputs that lie close together is a matter of these, which are far smaller.
    """
    count, corner = len(gram), gram[0][0]
    return [
        [math.fsum((gram[i][j], -gram[i][0], -gram[0][j], corner)) for j in range(count)]
        for i in range(count)
    ]


def _distances(offsets: Gram, here: tuple[float, ...]) -> list[float]:
    """From a weighted mean of the inputs to each of them."""
    products = [math.fsum(a * b for a, b in zip(here, row, strict=True)) for row in offsets]
    square = math.fsum(a * b for a, b in zip(here, products, strict=True))
    return [
        math.sqrt(max(0.0, square - 2.0 * product + row[i]))
        for i, (product, row) in enumerate(zip(products, offsets, strict=True))
    ]


def _is_median(offsets: Gram, shares: tuple[float, ...], i: int) -> bool:
    """Whether the others together pull less at an input than its own weight holds it."""
    distances = _distances(offsets, _only(i, len(shares)))
    pulls = [
        share / distance if distance else 0.0
        for share, distance in zip(shares, distances, strict=True)
    ]
    weight = math.fsum(s for s, distance in zip(shares, distances, strict=True) if not distance)
    pulls[i] = -math.fsum(pulls)
    return norm(offsets, pulls) <= _HELD * weight


def _step(
    offsets: Gram, shares: tuple[float, ...], here: tuple[float, ...], spread: float
) -> tuple[float, ...]:
    """One step towards the median."""
    distances = _distances(offsets, here)
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
    pull = total * norm(offsets, plus(there, here, -1.0))
    kept = 1.0 if pull == 0.0 else min(1.0, weight / pull)
    return plus(scaled(there, 1.0 - kept), here, kept)


def _only(i: int, count: int) -> tuple[float, ...]:
    """All the weight on one input."""
    return tuple(float(i == j) for j in range(count))
