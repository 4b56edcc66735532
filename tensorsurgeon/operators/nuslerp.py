"""Spherical interpolation between two models by weights, or between what tuning changed."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tensorsurgeon.operators.arc import on_arc
from tensorsurgeon.operators.families import (
    Coefficients,
    GeometricOperator,
    Gram,
    MergeOperator,
    Weighted,
)
from tensorsurgeon.operators.rowwise import ByVector
from tensorsurgeon.recipe import Expression, Place

_CANCELLED = 1e-6
"""A sum of weights, as a share of the larger, up to which both count as much."""


class Nuslerp(Weighted, GeometricOperator):
    """SLERP by two weights: of tensors, rows or columns, or of what tuning changed.

    The place on the arc is the second weight's share of both, and halfway where they cancel out.
    With a base the differences from it are interpolated, and added to it. A method of mergekit's
    (Goddard 2024). `along: rows` is `nuslerp_flatten: false` there, and `along: columns` is that
    together with `nuslerp_row_wise: true`; in a stack of matrices they are each matrix's columns.
    """

    operator: ClassVar[str] = "nuslerp"
    example: ClassVar[str] = "{nuslerp: {models: [a, b], weights: [0.7, 0.3]}}"

    models: Annotated[tuple[Expression, Expression], Field(description="the two models")]
    base: Annotated[
        Expression | None, Field(description="what both were tuned from; none by default")
    ] = None
    along: Literal["tensor", "rows", "columns"] = Field(
        default="tensor",
        description="what is one vector: the tensor, each row (the last axis), or each column (the "
        "axis before)",
    )

    idempotent: ClassVar[bool] = True

    def for_tensor(self, place: Place, shape: tuple[int, ...]) -> MergeOperator:
        """Another operator where a tensor is several vectors."""
        if self.along == "tensor":
            return self
        return NuslerpByVector.instead_of(self, place, shape, columns=self.along == "columns")

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


class NuslerpByVector(ByVector):
    """NuSLERP of rows or columns."""

    operator: ClassVar[str] = "nuslerp"


def _place(weights: tuple[float, ...]) -> float:
    # Divided first: their sum could overflow.
    largest = max(map(abs, weights)) or 1.0
    first, second = (weight / largest for weight in weights)
    total = first + second
    return second / total if abs(total) > _CANCELLED else 0.5
