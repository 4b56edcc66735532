"""The command line as processes that need not import torch first: each is a fork of one that has.

A process has its own signals, exit code and files, as if it had been started by a shell; what it
spares are the seconds of importing torch and transformers, of which a test needs many.
"""

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

ROOT = Path(__file__).parents[2]

SECONDS = 120
"""After which a process is ended by its alarm."""


@dataclass(kw_only=True)
class Warm:
    """Starts processes; to be closed.

    Attributes:
        folder: where they write what they say.
    """

    folder: Path
    wrapper: tuple[str, ...] = ()
    _count: int = 0
    _server: "subprocess.Popen[str]" = field(init=False)

    def __post_init__(self) -> None:
        self._server = subprocess.Popen(
            [*self.wrapper, sys.executable, "-m", "tests.trainer.warm"],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        """Of the server, or what it runs under."""
        return self._server.pid

    def ask(self, **order: Any) -> int:
        """What the server answers."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def start(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> "Started":
        """Starts `tensorsurgeon train ARGUMENTS`."""
        self._count += 1
        told = self.folder / f"told-{self._count}"
        pid = self.ask(arguments=[*map(str, arguments)], env=dict(env or {}), told=str(told))
        return Started(warm=self, pid=pid, arguments=arguments, told=told)

    def run(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None
    ) -> CompletedProcess[str]:
        """Runs `tensorsurgeon train ARGUMENTS` to its end."""
        return self.start(*arguments, env=env).wait()

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)


@dataclass(frozen=True, kw_only=True)
class Started:
    """A process that was started."""

    warm: Warm
    pid: int
    arguments: tuple[str | Path, ...]
    told: Path

    def wait(self) -> CompletedProcess[str]:
        """How it ends; as by `subprocess`, a signal's number is negative."""
        code = os.waitstatus_to_exitcode(self.warm.ask(wait=self.pid))
        out, err = (self.told.with_suffix(s).read_text() for s in (".out", ".err"))
        return CompletedProcess(self.arguments, code, out, err)

    def send(self, number: signal.Signals, once: Callable[[], bool]) -> None:
        """Sends a signal once something is so."""
        deadline = time.monotonic() + 60
        while not once():
            assert time.monotonic() < deadline
            time.sleep(0.003)
        self.kill(number)

    def kill(self, number: signal.Signals) -> None:
        # It stays a process, if a dead one, until it is waited for.
        os.kill(self.pid, number)


@contextlib.contextmanager
def warm(folder: Path, *wrapper: str) -> Iterator[Warm]:
    """Something that starts processes, with what they say in a folder."""
    server = Warm(folder=folder, wrapper=wrapper)
    try:
        yield server
    finally:
        server.close()


def _serve() -> list[str]:
    """Answers orders; returns, with what to do, in each process that is forked for one."""
    for line in iter(sys.stdin.readline, ""):
        order = json.loads(line)
        if "wait" in order:
            print(os.waitpid(order["wait"], 0)[1], flush=True)
        elif pid := os.fork():
            print(pid, flush=True)
        else:
            signal.alarm(SECONDS)
            os.environ.update(order["env"])
            _connect(order["told"])
            return list(order["arguments"])
    raise SystemExit


def _connect(told: str) -> None:
    """Input from nowhere, and the outputs into files."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, suffix in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(told + suffix, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)


def _main() -> None:
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401

    import tensorsurgeon.trainer.dry_run
    import tensorsurgeon.trainer.train  # noqa: F401
    from tensorsurgeon.cli import main

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # else each fork would copy what the collector looks at
    sys.argv = ["tensorsurgeon", "train", *_serve()]
    main()


if __name__ == "__main__":
    _main()
