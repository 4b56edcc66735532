"""Running a plan: threads, spans, and an output that appears whole or not at all."""

from tensorsurgeon.execute.delivering import Delivery, deliver_plan
from tensorsurgeon.execute.leftovers import Leftover, find_leftovers, remove_leftover
from tensorsurgeon.execute.run import OpenReader, Result, is_finished, is_made, run_plan

__all__ = [
    "Delivery",
    "Leftover",
    "OpenReader",
    "Result",
    "deliver_plan",
    "find_leftovers",
    "is_finished",
    "is_made",
    "remove_leftover",
    "run_plan",
]
