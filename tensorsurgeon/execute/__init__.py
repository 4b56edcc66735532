"""Running a plan: threads, spans, kernel copies, and an output that appears whole or not at all."""

from tensorsurgeon.execute.output import check_destination
from tensorsurgeon.execute.run import Progress, Result, default_threads, run_plan

__all__ = ["Progress", "Result", "check_destination", "default_threads", "run_plan"]
