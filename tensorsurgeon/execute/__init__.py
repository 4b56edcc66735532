"""Running a plan: threads, spans, and an output that appears whole or not at all."""

from tensorsurgeon.execute.destination import check_destination
from tensorsurgeon.execute.leftovers import Leftover, find_leftovers, remove_leftover
from tensorsurgeon.execute.run import OpenReader, Result, is_finished, run_plan

__all__ = [
    "Leftover",
    "OpenReader",
    "Result",
    "check_destination",
    "find_leftovers",
    "is_finished",
    "remove_leftover",
    "run_plan",
]
