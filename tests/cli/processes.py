"""The command line as a process: under another program, or stopped on its way."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess

ENGINE = (sys.executable, "-m", "tensorsurgeon")


def run_under(wrapper: tuple[str, ...], *arguments: str | Path) -> CompletedProcess[str]:
    """Runs `WRAPPER tensorsurgeon ARGUMENTS`: prlimit, strace, or a shell in a namespace."""
    return subprocess.run(
        [*wrapper, *ENGINE, *map(str, arguments)],
        # Bytecode is written with some of the calls that `fault` is about.
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def fault(injected: str) -> tuple[str, ...]:
    """A wrapper under which the kernel answers some system call otherwise than it would.

    Args:
        injected: as strace's `inject`: `fsync:error=EIO:when=2` fails each thread's second fsync.
    """
    strace = ("strace", "-f", "--seccomp-bpf", "-o", os.devnull)
    return (*strace, "-e", f"trace={injected.partition(':')[0]}", "-e", f"inject={injected}")


def namespace(setup: str, then: str = "") -> tuple[str, ...]:
    """A wrapper that has mounts of its own.

    Args:
        setup: a shell script that makes them.
        then: a shell script that looks at what became of them.
    """
    script = f'{setup}\ncode=0; "$@" || code=$?\n{then}\nexit $code'
    return ("unshare", "--map-root-user", "--mount", "sh", "-ec", script, "sh")


def run_on_terminal(*arguments: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Runs the command line with a terminal for stderr; what it showed there."""
    terminal, other_end = os.openpty()
    with subprocess.Popen(
        [*ENGINE, *map(str, arguments)],
        env={**os.environ, "TERM": "xterm-256color", **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=other_end,
    ):
        os.close(other_end)
        shown = b""
        with contextlib.suppress(OSError):  # how Linux says that the other end is closed
            while piece := os.read(terminal, 65536):
                shown += piece
    os.close(terminal)
    return shown.decode()


def stopped_by(
    number: signal.Signals, when: Callable[[], bool], *arguments: str | Path
) -> tuple[CompletedProcess[str], float]:
    """Sends a signal once `when` holds; how the command ended, and how many seconds later."""
    with subprocess.Popen(
        [*ENGINE, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 30
        while not when():
            assert process.poll() is None, "it ended too early"
            assert time.monotonic() < deadline, "it did not start in time"
            time.sleep(0.01)
        process.send_signal(number)
        sent = time.monotonic()
        out, err = process.communicate(timeout=30)
        seconds = time.monotonic() - sent
    return CompletedProcess(process.args, process.returncode, out, err), seconds
