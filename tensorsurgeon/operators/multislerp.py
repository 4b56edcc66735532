"""Spherical averages of any number of models."""

import math
from typing import Annotated, ClassVar

from pydantic import Field, StrictBool

from tensorsurgeon.operators.families import Coefficients, GeometricOperator, Gram, Tuned, Weighted
from tensorsurgeon.operators.spans import CANCELLED, directions, norm
from tensorsurgeon.operators.weights import all_on_one, normalized
from tensorsurgeon.recipe import Expression


class Multislerp(Weighted, GeometricOperator):
    """Spherical average: the mean of directions, as long as the mean of norms.

    Each tensor is flattened and seen as a direction and a norm; with a base, its difference from
    that. Both means are weighted. Published by Goddard (2025,
    goddard.blog/posts/multislerp-wow-what-a-cool-idea), who goes on to average the directions in
    the plane that touches the sphere at their mean, with the same weights; that average is zero,
    and left out here. A single model comes back as it is.
    """

    operator: ClassVar[str] = "multislerp"
    example: ClassVar[str] = "{multislerp: {models: [a, b, c], weights: [1, 1, 2]}}"

    models: Tuned
    base: Annotated[
        Expression | None, Field(description="the centre of the sphere; zero by default")
    ] = None
    normalize: StrictBool = Field(default=True, description="divide the weights by their sum")

    def is_idempotent(self) -> bool:
        """Weights that sum to one give a model back; a base always comes back."""
        return self.normalize or super().is_idempotent()

    def foregone(self, weights: tuple[float, ...]) -> Coefficients | None:
        """A single model, or the only one with a share of the whole, as it is.

        Raises:
            RecipeError: normalised weights that sum to zero.
        """
        if len(weights) == 1:
            return Coefficients((1.0,))
        return all_on_one(self._shares(weights)) if self.normalize else None

    def coefficients(self, gram: Gram, weights: tuple[float, ...]) -> Coefficients:
        """Weights of the inputs.

        Args:
            gram: (n, n) float64 dot products of the flattened tensors.
            weights: (n,) of the inputs.

        Returns:
            Where the directions cancel out, the weights as they are, with a note.
        """
        shares = self._shares(weights)
        norms, cosines = directions(gram)
        if not any(norms):
            return Coefficients(shares)
        length = math.fsum(share * size for share, size in zip(shares, norms, strict=True))
        size = norm(cosines, shares)
        if size < CANCELLED:
            return Coefficients(shares, "the inputs cancel out: averaged linearly")
        return Coefficients(
            tuple(
                length * share / size / own if own else 0.0
                for share, own in zip(shares, norms, strict=True)
            )
        )

    def _shares(self, weights: tuple[float, ...]) -> tuple[float, ...]:
        return normalized(weights, self.operator) if self.normalize else weights
