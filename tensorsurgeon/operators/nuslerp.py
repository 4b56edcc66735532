"""Spherical interpolation between two models by weights, or between what tuning changed."""

from typing import Annotated, ClassVar

from pydantic import Field

from tensorsurgeon.operators.arc import on_arc
from tensorsurgeon.operators.families import Coefficients, GeometricOperator, Gram, Weighted
from tensorsurgeon.recipe import Expression

_NO_WEIGHT = 1e-6
"""A sum of weights below which both count as much."""


class Nuslerp(Weighted, GeometricOperator):
    """Spherical interpolation whose place on the arc follows from weights (Goddard 2024).

    It lies at the second weight's share of both. With a base the differences from it are
    interpolated, and added to it.
    """

    operator: ClassVar[str] = "nuslerp"

    models: Annotated[tuple[Expression, Expression], Field(description="the two models")]
    base: Annotated[
        Expression | None, Field(description="what both were tuned from; zero by default")
    ] = None

    idempotent: ClassVar[bool] = True

    def foregone(self, weights: tuple[float, ...]) -> Coefficients | None:
        """Both ends of the arc are a model as it is."""
        t = _place(weights)
        return Coefficients((1.0 - t, t)) if t in (0.0, 1.0) else None

    def coefficients(self, gram: Gram, weights: tuple[float, ...]) -> Coefficients:
        """Weights of the two inputs; see `on_arc`.

        Args:
            gram: (2, 2) float64 dot products of the flattened tensors.
            weights: (2,) of the inputs.
        """
        return on_arc(gram, _place(weights))


def _place(weights: tuple[float, ...]) -> float:
    first, second = weights
    total = first + second
    return second / total if abs(total) >= _NO_WEIGHT else 0.5
