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
    listed = ", ".join(f"{weight:g}" for weight in weights)
    try:
        total, size = math.fsum(weights), math.fsum(map(abs, weights))
    except OverflowError:
        raise RecipeError(
            f"'{operator}': weights {listed} are too large to be summed",
            fix="divide all of them by the same number",
        ) from None
    if abs(total) <= _CANCELLED * size:
        raise RecipeError(
            f"'{operator}': weights {listed} sum to zero and cannot be normalized",
            fix=f"change a weight, {fix}".rstrip(", "),
        )
    return tuple(weight / total for weight in weights)


def all_on_one(shares: tuple[float, ...]) -> Coefficients | None:
    """That model as it is where one alone has a weight, so that no other is read; else None.

    Args:
        shares: (n,) weights that sum to one.
    """
    if sum(share != 0.0 for share in shares) > 1:
        return None
    return Coefficients(tuple(float(share != 0.0) for share in shares))
