"""Weights that are divided by their sum."""

import math

from tensorsurgeon.errors import RecipeError
from tensorsurgeon.operators.families import Coefficients

_CANCELLED = 1e-12
"""A sum of weights, as a share of the sum of their sizes, that is but the rounding of decimals."""


def normalized(
    weights: tuple[float, ...], operator: str, fix: str = "or set 'normalize: false'"
) -> tuple[float, ...]:
    """Weights divided by their sum, which is rounded once.

    Raises:
        RecipeError: they sum to zero, or to more than a float64 holds.
    """
    total, size = summed(weights, operator), summed(tuple(map(abs, weights)), operator)
    if abs(total) <= _CANCELLED * size:
        listed = ", ".join(f"{weight:g}" for weight in weights)
        raise RecipeError(
            f"'{operator}': weights {listed} sum to zero and cannot be normalized",
            fix=f"change a weight, {fix}".rstrip(", "),
        )
    return tuple(weight / total for weight in weights)


def summed(weights: tuple[float, ...], operator: str) -> float:
    """The sum of weights, rounded once.

    Raises:
        RecipeError: it is more than a float64 holds.
    """
    try:
        return math.fsum(weights)
    except OverflowError:
        listed = ", ".join(f"{weight:g}" for weight in weights)
        raise RecipeError(
            f"'{operator}': weights {listed} are too large to be summed",
            fix="divide all of them by the same number",
        ) from None


def all_on_one(shares: tuple[float, ...]) -> Coefficients | None:
    """That model as it is where one alone has a weight, so that no other is read; else None.

    Args:
        shares: (n,) weights that sum to one.
    """
    if sum(share != 0.0 for share in shares) > 1:
        return None
    return Coefficients(tuple(float(share != 0.0) for share in shares))
