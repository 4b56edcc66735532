"""Runs one command under a limit of memory, waits for it, and reports what became of it.

A program of its own on the standard library alone, so that little of what counts against the limit
is its own, and so that a child does not start with a large parent's peak on its account:

    python -I -S confine.py SETTINGS COMMAND...

SETTINGS is JSON with `report` and `log` (files to write), `deadline` (seconds), and one of
`cgroup` (a cgroup to join first) and `data` (RLIMIT_DATA in bytes), or neither where the limit
is set already.
"""

import json
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

KIB = 1024

CGROUP_FIGURES = ("memory.max", "memory.swap.max", "memory.peak", "memory.events")


def main(settings: dict[str, Any], command: list[str]) -> None:
    """Take the limit on, run the command in it, write the report."""
    if group := settings.get("cgroup"):
        Path(group, "cgroup.procs").write_text(str(os.getpid()))
    if data := settings.get("data"):
        resource.setrlimit(resource.RLIMIT_DATA, (data, data))
    start = time.perf_counter()
    code, usage = run(command, settings["log"], settings["deadline"])
    report = {
        "code": code,
        "wall": time.perf_counter() - start,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak_resident": usage.ru_maxrss * KIB,
        "data_limit": resource.getrlimit(resource.RLIMIT_DATA)[0],
        "cgroup": cgroup_figures(),
    }
    Path(settings["report"]).write_text(json.dumps(report))


def run(command: list[str], log: str, deadline: int) -> tuple[int, resource.struct_rusage]:
    """Exit code (negative: the signal) and account of a child; its streams go to the log."""
    mode = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    streams = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, mode, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawn(
        command[0], command, os.environ, file_actions=streams, setsigdef=[signal.SIGTERM]
    )
    # systemd ends a scope in which the kernel has killed a process: the report comes first.
    signal.signal(signal.SIGTERM, lambda *_: terminate(pid))
    # Nor may a program hang that is paged in and out and never killed.
    signal.signal(signal.SIGALRM, lambda *_: terminate(pid))
    signal.alarm(deadline)
    _, status, usage = os.wait4(pid, 0)
    signal.alarm(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return os.waitstatus_to_exitcode(status), usage


def terminate(pid: int) -> None:
    """Hand a termination on."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def cgroup_figures() -> dict[str, str]:
    """What the memory controller of this process's own cgroup v2 says; nothing without one."""
    found = {}
    if group := own_cgroup():
        for name in CGROUP_FIGURES:
            try:
                found[name] = (group / name).read_text().strip()
            except OSError:
                continue
    return found


def own_cgroup() -> Path | None:
    """This process's folder in the cgroup v2 hierarchy; None where there is no such hierarchy."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    points = [line.split()[4] for line in mounts if line.partition(" - ")[2].startswith("cgroup2 ")]
    paths = [line.removeprefix("0::") for line in groups if line.startswith("0::")]
    return Path(points[0] + paths[0]) if points and paths else None


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])
