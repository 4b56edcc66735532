"""Weights that are divided by their sum."""

import math

from tensorsurgeon.errors import RecipeError


def normalized(
    weights: tuple[float, ...], operator: str, fix: str = "or set 'normalize: false'"
) -> tuple[float, ...]:
    """Weights divided by their sum, which is rounded once.

    Raises:
        RecipeError: they sum to zero.
    """
    total = math.fsum(weights)
    if total == 0:
        listed = ", ".join(f"{weight:g}" for weight in weights)
        raise RecipeError(
            f"'{operator}': weights {listed} sum to zero and cannot be normalized",
            fix=f"change a weight, {fix}".rstrip(", "),
        )
    return tuple(weight / total for weight in weights)
