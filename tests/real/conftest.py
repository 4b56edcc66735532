"""Merging the two real models with the command line, in a folder that each test leaves clean."""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.conftest import RunCli


class Merge(Protocol):
    """Applies a recipe whose result is `expression`, and returns the folder it wrote."""

    def __call__(self, expression: dict[str, Any], *flags: str) -> Path:
        """The names `base` and `tuned` are the real models; flags go to `tensorsurgeon apply`."""


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder deleted as soon as the test is over: results here are 269 MB each."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture
def merge(smollm2: Path, smollm2_tuned: Path, scratch: Path, run_cli: RunCli) -> Merge:
    numbers = itertools.count()

    def merge(expression: dict[str, Any], *flags: str) -> Path:
        folder = scratch / f"merged-{next(numbers)}"
        recipe = write_recipe(expression, smollm2, smollm2_tuned, folder)
        done = run_cli("apply", recipe, "-q", *flags)
        assert done.returncode == 0, done.stderr
        return folder

    return merge


def write_recipe(expression: dict[str, Any], base: Path, tuned: Path, output: Path) -> Path:
    """Writes a recipe beside `output`. It is JSON, which every YAML 1.2 parser reads.

    Only the models that the expression names are declared: an unused one is an error.
    """
    text = json.dumps(expression)
    sources = {"base": str(base), "tuned": str(tuned)}
    used = {name: path for name, path in sources.items() if f'"{name}"' in text}
    recipe = {
        "models": used | {"merged": expression},
        "result": "merged",
        "output": {"path": str(output)},
    }
    file = output.with_suffix(".yaml")
    file.write_text(json.dumps(recipe))
    return file
