"""Spherical interpolation between two models."""

import math
from typing import ClassVar

from pydantic import Field

from tensorsurgeon.operators.families import Coefficients, GeometricOperator, Gram
from tensorsurgeon.recipe import Expression, UnitSchedule

_ANTIPARALLEL = 1e-12
"""Smallest 1 + cos at which an arc between two directions is still well defined."""


class Slerp(GeometricOperator):
    """Spherical interpolation between two models (Shoemake 1985).

    Each tensor is flattened and seen as one vector; the weights of the arc between the two
    directions are applied to the vectors as they are. Differs from the common 0.9995 cut-off: with
    float64 dot products, and weights that hardly depend on a small angle, near-parallel inputs need
    no threshold; only where the sine is 0 do the weights become their limit, 1 - t and t.
    """

    operator: ClassVar[str] = "slerp"
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

        Returns:
            sin((1 - t) angle) / sin(angle) and sin(t angle) / sin(angle); 1 - t and t, with a
            note, where there is no arc: an input is zero, or the two are antiparallel.
        """
        (aa, ab), (_, bb) = gram
        straight = (1.0 - t, t)
        if aa == 0.0 or bb == 0.0:
            return Coefficients(straight, "an input is zero: interpolated linearly")
        # Divided one after the other: the product of the squared norms could overflow.
        cosine = ab / math.sqrt(aa) / math.sqrt(bb)
        if 1.0 + cosine < _ANTIPARALLEL:
            return Coefficients(straight, "the inputs are antiparallel: interpolated linearly")
        angle = math.atan2(math.sqrt(max(0.0, (1.0 - cosine) * (1.0 + cosine))), cosine)
        if math.sin(angle) == 0.0:
            return Coefficients(straight)
        return Coefficients(
            (math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle))
        )
