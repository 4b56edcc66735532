"""The Karcher mean: the point on a sphere that is nearest to several others along its arcs."""

import math
from typing import Annotated, ClassVar

from pydantic import Field

from tensorsurgeon.operators.arc import ANTIPARALLEL
from tensorsurgeon.operators.families import Coefficients, GeometricOperator, Gram, Weighted
from tensorsurgeon.operators.spans import CANCELLED, directions, dot, norm, plus, scaled
from tensorsurgeon.operators.weights import all_on_one, normalized


class Karcher(Weighted, GeometricOperator):
    """Karcher mean: the point of the sphere that is nearest to all models.

    Each tensor is flattened and seen as a direction and a norm. The mean has the weighted
    Riemannian centre of mass of the directions (Karcher 1977) and the weighted mean of the norms,
    as Wang et al. (2026, arXiv:2603.04972) merge models. The iteration runs on the dot products of
    the inputs alone, which gives the same numbers. Inputs that are zero have no direction and count
    for the norm only.
    """

    operator: ClassVar[str] = "karcher"
    example: ClassVar[str] = "{karcher: {models: [a, b, c]}}"
    idempotent: ClassVar[bool] = True

    max_iter: Annotated[int, Field(ge=1, strict=True)] = Field(
        default=10, description="most steps of the iteration"
    )
    tol: Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)] = Field(
        default=1e-5, description="it ends at a step shorter than this, in radians"
    )

    def foregone(self, weights: tuple[float, ...]) -> Coefficients | None:
        """The only model that has a weight, as it is.

        Raises:
            RecipeError: the weights sum to zero.
        """
        return all_on_one(normalized(weights, self.operator, fix=""))

    def coefficients(self, gram: Gram, weights: tuple[float, ...]) -> Coefficients:
        """Weights of the inputs.

        Args:
            gram: (n, n) float64 dot products of the flattened tensors.
            weights: (n,) of the inputs; their sum counts as 1.
        """
        shares = normalized(weights, self.operator, fix="")
        norms, cosines = directions(gram)
        length = math.fsum(share * size for share, size in zip(shares, norms, strict=True))
        directed = tuple(share if size else 0.0 for share, size in zip(shares, norms, strict=True))
        if not any(directed):
            return Coefficients(shares)
        # Short of a sum of 1, each step would fall short of the mean as well.
        total = math.fsum(directed)
        if abs(total) >= CANCELLED:
            directed = scaled(directed, 1.0 / total)
        mean, note = _start(cosines, directed)
        for _ in range(self.max_iter):
            step = _towards(cosines, directed, mean)
            angle = norm(cosines, step)
            if angle < self.tol:
                break
            mean = plus(scaled(mean, math.cos(angle)), step, math.sin(angle) / angle)
            mean = scaled(mean, 1.0 / norm(cosines, mean))
        else:
            note = note or f"the mean was not found to {self.tol:g} in {self.max_iter} steps"
        return Coefficients(
            tuple(
                length * weight / size if size else 0.0
                for weight, size in zip(mean, norms, strict=True)
            ),
            note,
        )


def _start(cosines: Gram, shares: tuple[float, ...]) -> tuple[tuple[float, ...], str]:
    """The direction of the weighted sum; the first input's where that has none."""
    size = norm(cosines, shares)
    if size >= CANCELLED:
        return scaled(shares, 1.0 / size), ""
    first = next(i for i, share in enumerate(shares) if share)
    start = tuple(float(i == first) for i in range(len(shares)))
    return start, "the inputs cancel out: the mean was sought from the first one"


def _towards(
    cosines: Gram, shares: tuple[float, ...], mean: tuple[float, ...]
) -> tuple[float, ...]:
    """The weighted mean of the arcs from a direction to all inputs, seen from there."""
    step = (0.0,) * len(shares)
    for i, share in enumerate(shares):
        if not share:
            continue
        unit = tuple(float(i == j) for j in range(len(shares)))
        cosine = max(-1.0, min(1.0, dot(cosines, mean, unit)))
        if 1.0 + cosine < ANTIPARALLEL:
            continue  # it pulls every way alike
        sine = math.sqrt((1.0 - cosine) * (1.0 + cosine))
        stretch = math.atan2(sine, cosine) / sine if sine else 1.0
        step = plus(step, plus(unit, mean, -cosine), share * stretch)
    return step
