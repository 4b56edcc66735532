"""The operators of the recipe language, one file each: its parameters and its mathematics."""

from tensorsurgeon.operators.block_expansion import BlockExpansion
from tensorsurgeon.operators.depth_up_scale import DepthUpScale
from tensorsurgeon.operators.families import (
    ChosenLayer,
    Coefficients,
    GeometricOperator,
    Gram,
    LayerOperator,
    MergeOperator,
    WeightedOperator,
)
from tensorsurgeon.operators.linear import Linear
from tensorsurgeon.operators.slerp import Slerp
from tensorsurgeon.operators.stack import Stack

OPERATORS = (Stack, DepthUpScale, BlockExpansion, Linear, Slerp)
"""Every operator a recipe can use, in the order the manual tells of them."""

__all__ = [
    "OPERATORS",
    "BlockExpansion",
    "ChosenLayer",
    "Coefficients",
    "DepthUpScale",
    "GeometricOperator",
    "Gram",
    "LayerOperator",
    "Linear",
    "MergeOperator",
    "Slerp",
    "Stack",
    "WeightedOperator",
]
