"""How many threads there is work for on this machine, and running them."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

from tensorsurgeon.errors import PlanError

MOST_THREADS = 9
"""The most threads used unless a user asks for more."""

_TICK = 0.1
"""Seconds between two looks at whether threads have returned."""


def default_threads() -> int:
    """One for each processor this process may use, and one that waits for the disk meanwhile.

    No more than MOST_THREADS, since the disk is busy by then and each takes memory.
    """
    if hasattr(os, "sched_getaffinity"):
        processors = len(os.sched_getaffinity(0))
    else:
        processors = os.cpu_count() or 1
    return min(processors, _processor_quota(), MOST_THREADS - 1) + 1


def _processor_quota() -> int:
    """Whole processors that a container's quota allows; many where there is none."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):  # no such file, or 'max'
        return MOST_THREADS


def run_threads(
    work: Callable[[int], None],
    count: int,
    *,
    name: str,
    tick: Callable[[], None],
    stop: threading.Event,
    hurry: Callable[[], None] = lambda: None,
) -> None:
    """Run a function in so many threads until all have returned, or this one is interrupted.

    Args:
        work: called with the thread's number; returns soon when `stop` is set, and raises nothing.
        count: how many threads.
        name: what they are called.
        tick: called by this thread a few times a second.
        stop: set at the end, however it comes.
        hurry: called when this thread is interrupted; has what the others wait for fail.

    Raises:
        PlanError: a thread cannot be started.
        BaseException: what `tick` raises, or KeyboardInterrupt; all threads have returned.
    """
    threads = [
        threading.Thread(target=work, args=(index,), name=f"{name}-{index}")
        for index in range(count)
    ]
    try:
        for thread in threads:
            try:
                thread.start()
            except RuntimeError as error:
                raise PlanError(
                    f"a thread cannot be started: {error}", fix="use fewer with --threads"
                ) from None
        for thread in threads:
            while thread.is_alive():
                thread.join(_TICK)
                tick()
    except BaseException:
        stop.set()
        hurry()
        raise
    finally:
        stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
