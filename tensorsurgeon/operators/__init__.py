"""The operators of the recipe language, one file each: its parameters and its mathematics."""

from tensorsurgeon.operators.add_difference import AddDifference
from tensorsurgeon.operators.arcee_fusion import ArceeFusion
from tensorsurgeon.operators.block_expansion import BlockExpansion
from tensorsurgeon.operators.breadcrumbs import Breadcrumbs, BreadcrumbsTies
from tensorsurgeon.operators.checkpoint_average import CheckpointAverage
from tensorsurgeon.operators.consensus import Consensus
from tensorsurgeon.operators.dare import DareLinear, DareTies
from tensorsurgeon.operators.della import Della, DellaLinear
from tensorsurgeon.operators.depth_up_scale import DepthUpScale
from tensorsurgeon.operators.emr import Emr
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
from tensorsurgeon.operators.iso_c import IsoC
from tensorsurgeon.operators.karcher import Karcher
from tensorsurgeon.operators.linear import Linear
from tensorsurgeon.operators.lora import Lora, LowRank
from tensorsurgeon.operators.magmax import Magmax
from tensorsurgeon.operators.model_stock import ModelStock
from tensorsurgeon.operators.multislerp import Multislerp
from tensorsurgeon.operators.nearswap import Nearswap
from tensorsurgeon.operators.nuslerp import Nuslerp
from tensorsurgeon.operators.passthrough import Passthrough
from tensorsurgeon.operators.ram import Ram, RamplusTl
from tensorsurgeon.operators.sce import Sce
from tensorsurgeon.operators.slerp import Slerp
from tensorsurgeon.operators.stack import Stack
from tensorsurgeon.operators.streaming import StreamedOperator
from tensorsurgeon.operators.task_arithmetic import TaskArithmetic
from tensorsurgeon.operators.ties import Ties
from tensorsurgeon.operators.tsv_m import TsvM

OPERATORS = (
    Stack,
    DepthUpScale,
    BlockExpansion,
    Lora,
    Linear,
    CheckpointAverage,
    TaskArithmetic,
    AddDifference,
    Slerp,
    Nuslerp,
    Multislerp,
    Karcher,
    GeometricMedian,
    ModelStock,
    Ties,
    DareLinear,
    DareTies,
    Breadcrumbs,
    BreadcrumbsTies,
    DellaLinear,
    Della,
    Sce,
    Magmax,
    Emr,
    Consensus,
    Ram,
    RamplusTl,
    Nearswap,
    ArceeFusion,
    Passthrough,
    IsoC,
    TsvM,
)
"""Every operator a recipe can use, in the order the manual tells of them."""

__all__ = [
    "OPERATORS",
    "AddDifference",
    "ArceeFusion",
    "BlockExpansion",
    "Breadcrumbs",
    "BreadcrumbsTies",
    "CheckpointAverage",
    "ChosenLayer",
    "Coefficients",
    "Consensus",
    "DareLinear",
    "DareTies",
    "Della",
    "DellaLinear",
    "DepthUpScale",
    "Emr",
    "GeometricMedian",
    "GeometricOperator",
    "Gram",
    "IsoC",
    "Karcher",
    "LayerOperator",
    "Linear",
    "Lora",
    "LowRank",
    "Magmax",
    "MergeOperator",
    "ModelStock",
    "Multislerp",
    "Nearswap",
    "Nuslerp",
    "Passthrough",
    "Ram",
    "RamplusTl",
    "Sce",
    "Slerp",
    "Stack",
    "StreamedOperator",
    "SumOperator",
    "TaskArithmetic",
    "Ties",
    "TsvM",
]
