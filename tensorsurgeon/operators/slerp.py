"""Spherical interpolation between two models."""

from typing import ClassVar

from pydantic import Field

from tensorsurgeon.operators.arc import on_arc
from tensorsurgeon.operators.families import Coefficients, GeometricOperator, Gram
from tensorsurgeon.recipe import Expression, UnitSchedule


class Slerp(GeometricOperator):
    """Spherical interpolation between two models (Shoemake 1985).

    Each tensor is flattened and seen as one vector; the weights of the arc between the two
    directions are applied to the vectors as they are. Differs from the common 0.9995 cut-off: with
    float64 dot products, and weights that hardly depend on a small angle, near-parallel inputs need
    no threshold; only where the sine is 0 do the weights become their limit, 1 - t and t. They are
    these as well where there is no arc, since a tensor is zero or the two are antiparallel, and the
    summary says so.
    """

    operator: ClassVar[str] = "slerp"
    example: ClassVar[str] = "{slerp: {models: [a, b], t: [0, 0.5, 1]}}"
    idempotent: ClassVar[bool] = True

    models: tuple[Expression, Expression] = Field(description="the two models")
    t: UnitSchedule = Field(description="0 gives the first model, 1 the second")

    def foregone(self, t: float) -> Coefficients | None:
        """Both ends of the arc are a model as it is."""
        return Coefficients((1.0 - t, t)) if t in (0.0, 1.0) else None

    def coefficients(self, gram: Gram, t: float) -> Coefficients:
        """Weights of the two inputs.

        Args:
            gram: (2, 2) float64 dot products of the flattened tensors.
            t: position on the arc, unitless, 0 to 1.
        """
        return on_arc(gram, t)
