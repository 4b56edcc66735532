"""The operators of the recipe language, one file each: its parameters and its mathematics."""

from tensorsurgeon.operators.add_difference import AddDifference
from tensorsurgeon.operators.block_expansion import BlockExpansion
from tensorsurgeon.operators.depth_up_scale import DepthUpScale
from tensorsurgeon.operators.families import (
    ChosenLayer,
    Coefficients,
    GeometricOperator,
    Gram,
    LayerOperator,
    MergeOperator,
    SumOperator,
)
from tensorsurgeon.operators.geometric_median import GeometricMedian
from tensorsurgeon.operators.karcher import Karcher
from tensorsurgeon.operators.linear import Linear
from tensorsurgeon.operators.model_stock import ModelStock
from tensorsurgeon.operators.multislerp import Multislerp
from tensorsurgeon.operators.nuslerp import Nuslerp
from tensorsurgeon.operators.slerp import Slerp
from tensorsurgeon.operators.stack import Stack
from tensorsurgeon.operators.task_arithmetic import TaskArithmetic

OPERATORS = (
    Stack,
    DepthUpScale,
    BlockExpansion,
    Linear,
    TaskArithmetic,
    AddDifference,
    Slerp,
    Nuslerp,
    Multislerp,
    Karcher,
    GeometricMedian,
    ModelStock,
)
"""Every operator a recipe can use, in the order the manual tells of them."""

__all__ = [
    "OPERATORS",
    "AddDifference",
    "BlockExpansion",
    "ChosenLayer",
    "Coefficients",
    "DepthUpScale",
    "GeometricMedian",
    "GeometricOperator",
    "Gram",
    "Karcher",
    "LayerOperator",
    "Linear",
    "MergeOperator",
    "ModelStock",
    "Multislerp",
    "Nuslerp",
    "Slerp",
    "Stack",
    "SumOperator",
    "TaskArithmetic",
]
