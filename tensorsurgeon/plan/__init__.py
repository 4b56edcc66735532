"""The plan: from headers, configs and a recipe to every byte that will be written. Pure."""

from tensorsurgeon.plan.forecast import Beside, buffers_needed, memory_needed, threads_within
from tensorsurgeon.plan.nodes import Geometric, Node, Stored, Sum, Zeros, origin_of
from tensorsurgeon.plan.outcome import OutputTensor, Plan, batches, read_twice
from tensorsurgeon.plan.planner import make_plan
from tensorsurgeon.plan.sidecars import OwnFile, SidecarFile

__all__ = [
    "Beside",
    "Geometric",
    "Node",
    "OutputTensor",
    "OwnFile",
    "Plan",
    "SidecarFile",
    "Stored",
    "Sum",
    "Zeros",
    "batches",
    "buffers_needed",
    "make_plan",
    "memory_needed",
    "origin_of",
    "read_twice",
    "threads_within",
]
