"""The weights of an arc between two directions."""

import math

from tensorsurgeon.operators.families import Coefficients, Gram

ANTIPARALLEL = 1e-12
"""Smallest 1 + cos at which an arc between two directions is still well defined."""


def on_arc(gram: Gram, t: float) -> Coefficients:
    """Weights of two vectors at a position on the arc between their directions.

    Args:
        gram: (2, 2) float64 dot products of the two.
        t: position on the arc, unitless, 0 to 1.

    Returns:
        sin((1 - t) angle) / sin(angle) and sin(t angle) / sin(angle); 1 - t and t, with a note,
        where there is no arc: one vector is zero, or the two are antiparallel.
    """
    (aa, ab), (_, bb) = gram
    straight = (1.0 - t, t)
    if aa == 0.0 or bb == 0.0:
        # Where both are zero, so is whatever lies between them.
        note = "an input is zero: interpolated linearly" if aa or bb else ""
        return Coefficients(straight, note)
    # Divided one after the other: the product of the squared norms could overflow.
    cosine = ab / math.sqrt(aa) / math.sqrt(bb)
    if 1.0 + cosine < ANTIPARALLEL:
        return Coefficients(straight, "the inputs are antiparallel: interpolated linearly")
    angle = math.atan2(math.sqrt(max(0.0, (1.0 - cosine) * (1.0 + cosine))), cosine)
    if math.sin(angle) == 0.0:
        return Coefficients(straight)
    return Coefficients(
        (math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle))
    )
