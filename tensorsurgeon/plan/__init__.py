"""The plan: from headers, configs and a recipe to every byte that will be written. Pure."""

from tensorsurgeon.plan.forecast import (
    PARSING,
    Beside,
    buffers_needed,
    memory_needed,
    threads_within,
)
from tensorsurgeon.plan.nodes import (
    Geometric,
    Node,
    Stored,
    Streamed,
    Sum,
    Zeros,
    base_of,
    bytes_surveyed,
    origin_of,
    stored_in,
)
from tensorsurgeon.plan.outcome import OutputTensor, Plan, batches, read_twice, surveyed_in
from tensorsurgeon.plan.planner import make_plan
from tensorsurgeon.plan.sidecars import OwnFile, SidecarFile

__all__ = [
    "PARSING",
    "Beside",
    "Geometric",
    "Node",
    "OutputTensor",
    "OwnFile",
    "Plan",
    "SidecarFile",
    "Stored",
    "Streamed",
    "Sum",
    "Zeros",
    "base_of",
    "batches",
    "buffers_needed",
    "bytes_surveyed",
    "make_plan",
    "memory_needed",
    "origin_of",
    "read_twice",
    "stored_in",
    "surveyed_in",
    "threads_within",
]
