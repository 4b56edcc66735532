"""How many threads there is work for on this machine."""

import os
from pathlib import Path

MOST_THREADS = 9
"""The most threads used unless a user asks for more."""


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
