"""Run a program as a whole process: wall and CPU seconds, peak resident and anonymous memory."""

import os
import re
import resource
import select
import signal
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Memory is sampled at 50 Hz.
SAMPLE_MILLISECONDS = 20
KIB = 1024


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one process took. Seconds and bytes."""

    wall: float
    """From the start of the process until its output is flushed."""
    flush: float
    """The part of `wall` that the flush after the end of the process took."""
    cpu: float
    """User and system time, children included."""
    peak_resident: int
    peak_anonymous: int


class ChildError(Exception):
    """A program under measurement failed; says which, how, and the end of what it printed."""

    def __init__(self, command: list[str], code: int, log: Path) -> None:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        super().__init__(f"{' '.join(command)}\n{how}; {log} ends with:\n{tail}")


class Peaks:
    """Highest memory of a process and its descendants, sampled from /proc while it runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.resident = 0
        self.anonymous = 0

    def sample(self) -> None:
        """Look once; processes that are gone count as nothing."""
        family = _family(self._pid)
        # The kernel keeps each process's own high-water mark, so the last sample sees it all.
        self.resident = max(self.resident, sum(_status(pid, "VmHWM") for pid in family))
        self.anonymous = max(self.anonymous, sum(_status(pid, "RssAnon") for pid in family))


def run(
    command: list[str],
    *,
    log: Path,
    output: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Measurement:
    """Measure one process; its standard streams go to the log.

    Args:
        command: program (a path) and arguments.
        log: overwritten; its tail is shown when the program fails.
        output: file or folder that counts as written only once it is flushed.
        environment: the process's; by default this one's, without a Hub.

    Raises:
        ChildError: the program did not end with exit code 0.
    """
    mode = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    streams = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), mode, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    start = time.perf_counter()
    pid = os.posix_spawn(command[0], command, environment or _environment(), file_actions=streams)
    peaks = Peaks(pid)
    try:
        _sample_until_exit(pid, peaks)
    except BaseException:
        os.kill(pid, signal.SIGTERM)
        os.wait4(pid, 0)
        raise
    _, status, usage = os.wait4(pid, 0)
    exited = time.perf_counter()
    if code := os.waitstatus_to_exitcode(status):
        raise ChildError(command, code, log)
    if output is not None:
        _flush(output)
    flushed = time.perf_counter()
    return Measurement(
        wall=flushed - start,
        flush=flushed - exited,
        cpu=usage.ru_utime + usage.ru_stime,
        peak_resident=max(peaks.resident, _own_peak(usage)),
        peak_anonymous=peaks.anonymous,
    )


def median_wall(command: list[str], *, log: Path, runs: int) -> float:
    """Median wall seconds of a short command, after one run that is not counted."""
    run(command, log=log)
    return statistics.median(run(command, log=log).wall for _ in range(runs))


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    # An installed program has its bytecode cached; one run from a checkout must be allowed to.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment | {"HF_HUB_OFFLINE": "1"}


def _sample_until_exit(pid: int, peaks: Peaks) -> None:
    descriptor = os.pidfd_open(pid)
    try:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        while not ended.poll(SAMPLE_MILLISECONDS):
            peaks.sample()
    finally:
        os.close(descriptor)


def _own_peak(usage: resource.struct_rusage) -> int:
    """Exact peak resident bytes of the child, or 0 where its account does not tell.

    exec hands the parent's peak on to the child's account, whatever the way of spawning, so a
    figure that does not exceed the parent's says nothing.
    """
    parent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage.ru_maxrss * KIB if usage.ru_maxrss > parent else 0


def _family(pid: int) -> list[int]:
    """The process and all its living descendants."""
    family = [pid]
    for parent in family:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            family.extend(map(int, _read(children).split()))
    return family


def _status(pid: int, field: str) -> int:
    """A size in /proc/PID/status, in bytes; 0 when the process is gone."""
    found = re.search(rf"^{field}:\s+(\d+) kB", _read(Path(f"/proc/{pid}/status")), re.MULTILINE)
    return int(found[1]) * KIB if found else 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _flush(output: Path) -> None:
    """Force every file below the path to disk."""
    files = [output] if output.is_file() else [path for path in output.rglob("*") if path.is_file()]
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
