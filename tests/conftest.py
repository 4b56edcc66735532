"""What the tests share: the command line as a subprocess, the real models, the peer.

Nothing heavy is imported here: models are made by scripts of their own, once, under `models/`.
"""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Protocol

import pytest

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "models"


class RunCli(Protocol):
    """Runs `python -m tensorsurgeon ARGUMENTS` to its end, and captures both streams as text."""

    def __call__(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CompletedProcess[str]:
        """`env` is added to this process's environment; the exit code is the caller's to check."""


# Where the suite was started with signals ignored, as a job in the background is, what it starts
# would ignore them as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def run_cli() -> RunCli:
    def run_cli(
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tensorsurgeon", *map(str, arguments)],
            cwd=cwd,
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run_cli


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct: 30 Llama layers, tied embeddings, one bfloat16 file of 269 MB."""
    return _made_once(MODELS / "SmolLM2-135M-Instruct", ROOT / "recipes" / "smollm2.py")


@pytest.fixture(scope="session")
def smollm2_tuned(smollm2: Path) -> Path:
    """The same model a few optimiser steps later: same names and shapes, every tensor differs."""
    return _made_once(MODELS / "SmolLM2-135M-tuned", ROOT / "tests" / "real" / "tune.py", smollm2)


@pytest.fixture(scope="session")
def mergekit_python() -> Path:
    """The interpreter of the environment that has mergekit, the second implementation."""
    python = ROOT / ".venv-mergekit" / "bin" / "python"
    if not python.exists():
        pytest.fail(f"mergekit is not installed in {python.parent.parent}: run `make test` once")
    return python


def _made_once(folder: Path, script: Path, *arguments: Path) -> Path:
    """The model that a script makes, by whichever worker comes first; it takes the folder last."""
    MODELS.mkdir(exist_ok=True)
    with (MODELS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            run_script(script, *arguments, folder)
    return folder


def run_script(script: Path, *arguments: Path) -> None:
    """Runs one of our own scripts; its output is shown only if it fails."""
    done = subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"{script.name} failed:\n{done.stdout}{done.stderr}")
