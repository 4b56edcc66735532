"""Spherical averages of any number of models."""

import math
from typing import Annotated, ClassVar

from pydantic import Field, StrictBool

from tensorsurgeon.operators.families import Coefficients, GeometricOperator, Gram, Tuned, Weighted
from tensorsurgeon.operators.spans import directions, norm
from tensorsurgeon.operators.weights import normalized
from tensorsurgeon.recipe import Expression

_BALANCED = 1e-8
"""Length of a weighted sum of directions below which it has no direction itself."""


class Multislerp(Weighted, GeometricOperator):
    """The weighted mean of the models' directions, as long as their mean norm (Goddard 2025).

    Each tensor is flattened and seen as a direction and a norm; with a base, its difference from
    that. The published method goes on to average what the directions say in the plane that touches
    the sphere at that mean, with the same weights; that average is zero, and left out here.
    """

    operator: ClassVar[str] = "multislerp"

    models: Tuned
    base: Annotated[
        Expression | None, Field(description="the origin of the sphere; zero by default")
    ] = None
    normalize: StrictBool = Field(default=True, description="divide the weights by their sum")

    def is_idempotent(self) -> bool:
        """Weights that sum to one give a model back; a base always comes back."""
        return self.normalize or super().is_idempotent()

    def coefficients(self, gram: Gram, weights: tuple[float, ...]) -> Coefficients:
        """Weights of the inputs.

        Args:
            gram: (n, n) float64 dot products of the flattened tensors.
            weights: (n,) of the inputs.

        Returns:
            Where the directions cancel out, the weights as they are, with a note.

        Raises:
            RecipeError: normalised weights that sum to zero.
        """
        shares = normalized(weights, self.operator) if self.normalize else weights
        if len(shares) == 1:
            return Coefficients((1.0,))
        norms, cosines = directions(gram)
        length = math.fsum(share * size for share, size in zip(shares, norms, strict=True))
        size = norm(cosines, shares)
        if size < _BALANCED:
            return Coefficients(shares, "the inputs cancel out: averaged linearly")
        return Coefficients(
            tuple(
                length * share / size / own if own else 0.0
                for share, own in zip(shares, norms, strict=True)
            )
        )
