"""What the tests of verification share."""

from pathlib import Path
from typing import Protocol

import pytest

from tensorsurgeon.verify import Report, verify
from tests.verify.checkpoints import tiny_checkpoint


class Problems(Protocol):
    """Verifies a folder; what is wrong, a line each with the fixes left out."""

    def __call__(self, folder: Path) -> str: ...


@pytest.fixture
def problems() -> Problems:
    def problems(folder: Path) -> str:
        return told(verify(folder, threads=2))

    return problems


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound checkpoint in one file."""
    return tiny_checkpoint(tmp_path / "out")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A sound checkpoint in two files."""
    return tiny_checkpoint(tmp_path / "out", shards=2)


def told(report: Report) -> str:
    """The problems of a report, a line each with the fixes left out."""
    lines = [str(problem).partition("\n")[0] for problem in report.problems]
    return "\n".join(line.replace(f"{report.path}/", "") for line in lines)
