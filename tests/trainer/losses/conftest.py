"""Tiny models of transformers, and TRL in an environment of its own."""

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def trl_python() -> Path:
    """The interpreter of the environment that has TRL, the second implementation."""
    python = ROOT / ".venv-trl" / "bin" / "python"
    if not python.exists():
        pytest.fail(f"TRL is not installed in {python.parent.parent}: run `make test` once")
    return python
