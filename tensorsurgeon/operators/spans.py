"""Vectors that are sums of a few others, known by their weights and a Gram matrix."""

import math
from collections.abc import Sequence

from tensorsurgeon.operators.families import Gram

Weights = Sequence[float]

CANCELLED = 1e-7
"""Length of a weighted sum of directions below which float64 dot products know none of its own."""


def dot(gram: Gram, left: Weights, right: Weights) -> float:
    """The dot product of two sums of the inputs.

    Args:
        gram: (n, n) dot products of the inputs.
        left: (n,) weights of the one sum.
        right: (n,) weights of the other.
    """
    return math.fsum(
        a * b * gram[i][j] for i, a in enumerate(left) if a for j, b in enumerate(right) if b
    )


def norm(gram: Gram, weights: Weights) -> float:
    """The Euclidean norm of a sum of the inputs; what rounding makes negative is 0."""
    return math.sqrt(max(0.0, dot(gram, weights, weights)))


def scaled(weights: Weights, factor: float) -> tuple[float, ...]:
    """A sum times a factor."""
    return tuple(factor * weight for weight in weights)


def plus(left: Weights, right: Weights, factor: float = 1.0) -> tuple[float, ...]:
    """A sum plus a factor times another."""
    return tuple(a + factor * b for a, b in zip(left, right, strict=True))


def directions(gram: Gram) -> tuple[list[float], list[list[float]]]:
    """The inputs' norms, and the cosines between them; those of a zero input are 0."""
    norms = [math.sqrt(max(0.0, row[i])) for i, row in enumerate(gram)]
    # Divided one after the other: the product of two norms could overflow.
    cosines = [
        [product / a / b if a and b else 0.0 for product, b in zip(row, norms, strict=True)]
        for row, a in zip(gram, norms, strict=True)
    ]
    return norms, cosines
