"""The kinds of hard memory limit, in the order of preference, each tried before it is used.

A cgroup counts everything, the page cache of what is read included, and its kernel kills. Where
none can be had, RLIMIT_DATA refuses private memory beyond the limit (nothing of the page cache
counts), and the peak of resident memory is held against the limit afterwards.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.jobs import ROOT
from tests.low_memory.confine import own_cgroup

CONFINE = Path(__file__).with_name("confine.py")

KINDS = ("cgroup", "systemd", "rlimit")

DEADLINE = 3600
"""Seconds that a process may take before it is terminated."""

PROBE_LIMIT = 64_000_000
LIVES = "pass"
DIES = "b'x' * 256_000_000"


class LimitError(Exception):
    """A kind of limit cannot be had here; says why."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one process. Seconds and bytes.

    Attributes:
        code: exit code; negative, the signal that killed it.
        wall: from start to end.
        cpu: user and system time.
        peak_resident: VmHWM, the kernel's own mark.
        data_limit: RLIMIT_DATA that was in force; -1 for none.
        cgroup: files of its cgroup after its end.
        log: all that it printed.
    """

    code: int
    wall: float
    cpu: float
    peak_resident: int
    data_limit: int
    cgroup: dict[str, str] = field(default_factory=dict)
    log: Path

    @property
    def how(self) -> str:
        """How it ended, in words."""
        if self.code < 0:
            name = signal.Signals(-self.code).name
            return f"killed by {name}" + (", out of memory" if self.out_of_memory_kills else "")
        if not self.code:
            return "finished"
        return "MemoryError" if self.last_line == "MemoryError" else f"exit code {self.code}"

    @property
    def out_of_memory_kills(self) -> int:
        """How many processes of its cgroup the kernel has killed for memory."""
        events = dict(line.split() for line in self.cgroup.get("memory.events", "").splitlines())
        return int(events.get("oom_kill", 0))

    @property
    def tail(self) -> str:
        """The end of what it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    @property
    def last_line(self) -> str:
        """The exception that a Python program ended with, without what numpy adds to its name."""
        lines = self.log.read_text(errors="replace").split("\n")
        raised = next((line for line in reversed(lines) if line.strip()), "").partition(":")[0]
        return "MemoryError" if raised.endswith("MemoryError") else raised


class Limit(ABC):
    """A way to run a command in no more than so many bytes."""

    kind: str
    """What `--limit` calls it."""
    title: str
    """What the report calls it, with what counts against it."""
    by_cgroup: bool = True
    """Whether what the process's cgroup counts is of the process alone."""

    def run(self, command: list[str], *, limit: int, log: Path) -> Outcome:
        """Run a command to its end.

        Args:
            command: program (a path) and arguments.
            limit: bytes.
            log: overwritten with all that the command prints.

        Raises:
            LimitError: the limit could not be set, or was another one.
        """
        with self._place(limit) as (prefix, settings):
            outcome = confined(prefix, settings, command, log=log)
        if not self._was_in_force(outcome, limit):
            raise LimitError(f"{self.title}: a limit of {limit} bytes was not in force")
        return outcome

    def died_of_it(self, outcome: Outcome) -> bool:
        """Whether it was this limit, and nothing else, that ended the process."""
        return outcome.code == -signal.SIGKILL and outcome.out_of_memory_kills > 0

    def check(self, folder: Path) -> None:
        """Make sure that here the limit spares who stays within it and ends who does not.

        Raises:
            LimitError: it cannot be set, or does not hold.
        """
        log = folder / "probe.log"
        python = [sys.executable, "-I", "-S", "-c"]
        modest = self.run([*python, LIVES], limit=PROBE_LIMIT, log=log)
        if modest.code:
            raise LimitError(f"a program that needs little memory ended with: {modest.how}")
        greedy = self.run([*python, DIES], limit=PROBE_LIMIT, log=log)
        if not self.died_of_it(greedy):
            raise LimitError(f"a program that needs four times the limit ended with: {greedy.how}")

    @abstractmethod
    def _place(self, limit: int) -> AbstractContextManager[tuple[list[str], dict[str, Any]]]:
        """What goes before the confining program, and its settings, while the limit is there."""

    def _was_in_force(self, outcome: Outcome, limit: int) -> bool:
        """Whether the process itself saw the limit; the kernel rounds down to whole pages."""
        seen = outcome.cgroup.get("memory.max", "")
        swap = outcome.cgroup.get("memory.swap.max", "0")
        return (
            seen.isdigit()
            and limit - os.sysconf("SC_PAGE_SIZE") < int(seen) <= limit
            and (swap == "0")
        )


class Cgroup(Limit):
    """A cgroup v2 of our own, made and removed for every run."""

    kind = "cgroup"
    title = "cgroup v2, memory.max without swap; page cache counts"

    @contextmanager
    def _place(self, limit: int) -> Iterator[tuple[list[str], dict[str, Any]]]:
        group = _parent_with_memory() / f"tensorsurgeon-low-memory-{os.getpid()}"
        try:
            group.mkdir()
        except OSError as error:
            raise LimitError(f"{group} cannot be made: {error.strerror}") from error
        try:
            _write(group / "memory.max", str(limit))
            if (group / "memory.swap.max").exists():
                _write(group / "memory.swap.max", "0")
            yield [], {"cgroup": str(group)}
        finally:
            group.rmdir()


class Scope(Limit):
    """A transient scope of systemd, which makes the cgroup for us.

    Args:
        name: how it is begun, in words.
        prefix: the command that reaches the manager.
        options: more of its options.
        environment: variables that would not arrive by themselves.
    """

    kind = "systemd"

    def __init__(
        self, name: str, prefix: list[str], options: Sequence[str] = (), environment: str = ""
    ) -> None:
        self.title = f"{name}, MemoryMax without swap (cgroup v2); page cache counts"
        handed = [f"{key}={os.environ[key]}" for key in environment.split() if key in os.environ]
        self._prefix, self._options, self._handed = prefix, options, handed

    def _place(self, limit: int) -> AbstractContextManager[tuple[list[str], dict[str, Any]]]:
        bounds = ["-p", f"MemoryMax={limit}", "-p", "MemorySwapMax=0"]
        command = [*self._prefix, "--scope", "--quiet", "--collect", *bounds, *self._options, "--"]
        return nullcontext(([*command, "env", *self._handed], {}))


class DataLimit(Limit):
    """RLIMIT_DATA, inherited by the process; the peak of resident memory is checked afterwards."""

    kind = "rlimit"
    by_cgroup = False
    title = "RLIMIT_DATA, and the process's VmHWM checked; page cache does not count"

    def died_of_it(self, outcome: Outcome) -> bool:
        return outcome.code == 1 and outcome.last_line == "MemoryError"

    def _place(self, limit: int) -> AbstractContextManager[tuple[list[str], dict[str, Any]]]:
        return nullcontext(([], {"data": limit}))

    def _was_in_force(self, outcome: Outcome, limit: int) -> bool:
        return outcome.data_limit == limit


def kinds() -> list[Limit]:
    """All kinds that there are, the strictest and simplest first."""
    if os.getuid():
        # Without a manager of their own, users ask the system's through sudo; the work itself is
        # done as the user. Whatever is asked, sudo drops these two.
        scopes = [
            Scope("systemd-run --user --scope", ["systemd-run", "--user"]),
            Scope(
                "sudo systemd-run --scope",
                ["sudo", "--non-interactive", "--preserve-env", "systemd-run"],
                [f"--uid={os.getuid()}", f"--gid={os.getgid()}"],
                environment="PATH LD_LIBRARY_PATH",
            ),
        ]
    else:
        scopes = [Scope("systemd-run --scope", ["systemd-run"])]
    return [Cgroup(), *scopes, DataLimit()]


def first_that_holds(folder: Path, kind: str | None = None) -> tuple[Limit, list[str]]:
    """The first kind that works here, and why those before it do not.

    Args:
        folder: for what the tried programs print.
        kind: the only kind to try.

    Raises:
        LimitError: none works.
    """
    refused = []
    for limit in kinds():
        if kind in (None, limit.kind):
            try:
                limit.check(folder)
            except LimitError as error:
                refused.append(f"{limit.title.partition(',')[0]}: {error}")
            else:
                return limit, refused
    raise LimitError("no limit of memory can be set here:\n  " + "\n  ".join(refused))


def run_without_limit(command: list[str], *, log: Path) -> Outcome:
    """Run a command to its end in as much memory as it likes."""
    return confined([], {}, command, log=log)


def confined(
    prefix: list[str],
    settings: dict[str, Any],
    command: list[str],
    *,
    log: Path,
    deadline: int = DEADLINE,
) -> Outcome:
    """Run the confining program, and read its report.

    Raises:
        LimitError: it left no report.
    """
    if prefix and not shutil.which(prefix[0]):
        raise LimitError(f"there is no {prefix[0]}")
    with tempfile.TemporaryDirectory(prefix="low-memory-") as folder:
        report = Path(folder, "report.json")
        told = json.dumps(settings | {"report": str(report), "log": str(log), "deadline": deadline})
        process = subprocess.Popen(
            [*prefix, sys.executable, "-I", "-S", str(CONFINE), told, *command],
            cwd=ROOT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _, complaint = process.communicate()
        finally:
            process.terminate()
            process.wait()
        if not report.exists():
            reason = complaint.strip().splitlines() or [f"exit code {process.returncode}"]
            raise LimitError(reason[-1])
        return Outcome(**json.loads(report.read_text()), log=log)


def _parent_with_memory() -> Path:
    """The nearest cgroup above this process's whose children have the memory controller."""
    own = own_cgroup()
    if own is None:
        raise LimitError("there is no cgroup v2 hierarchy")
    for group in (own, *own.parents):
        try:
            controllers = (group / "cgroup.subtree_control").read_text().split()
        except OSError:
            # The root of a hierarchy that has no controllers at all has no such file.
            continue
        if "memory" in controllers:
            return group
    raise LimitError(f"{own}: the memory controller is not handed down to any cgroup there")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise LimitError(f"{path} cannot be written: {error.strerror}") from error
