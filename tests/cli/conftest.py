"""The command line in this process, and what holds whenever it refuses."""

import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Protocol

import pytest

from tensorsurgeon.cli import main
from tests.cli.checkpoints import tiny_llama


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


class Command(Protocol):
    """Runs `tensorsurgeon ARGUMENTS` in this process."""

    def __call__(self, *arguments: str | Path) -> Done:
        """Any exception but SystemExit is the test's failure, as it would be a traceback."""


class Refused(Protocol):
    """Runs `tensorsurgeon ARGUMENTS`, which must be refused as the documentation says."""

    def __call__(self, *arguments: str | Path, code: int) -> str:
        """Returns the message; stdout is empty and no file is left, changed or gone."""


class WriteRecipe(Protocol):
    """Writes `recipe.yaml` beside the models."""

    def __call__(self, text: str | bytes) -> Path:
        """Text may be indented as a whole; bytes are written as they are."""


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    def command(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["tensorsurgeon", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Done(code=int(ended.value.code or 0), out=out, err=err)

    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    handler = signal.getsignal(signal.SIGTERM)
    yield command
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def refused(command: Command, tmp_path: Path) -> Refused:
    def refused(*arguments: str | Path, code: int) -> str:
        before = listing(tmp_path)
        done = command(*arguments)
        assert done.code == code, done.err
        assert done.out == ""
        assert listing(tmp_path) == before
        return done.err

    return refused


@pytest.fixture
def recipe(tmp_path: Path) -> WriteRecipe:
    def write(text: str | bytes) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
        return path

    return write


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with two Llamas of two layers, `a` and `b`, that differ in their weights alone."""
    tiny_llama(tmp_path / "a", seed=1)
    tiny_llama(tmp_path / "b", seed=2)
    return tmp_path


def listing(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of change of everything in a folder, hidden files too."""
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {path: (status.st_size, status.st_mtime_ns) for path, status in found.items()}
