"""Tiny models, made once each, and recipes applied to them."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from transformers.utils import logging

from tensorsurgeon import api
from tests.families.models import Family


class Base(Protocol):
    """The folder of a family's tiny model; another seed is another model."""

    def __call__(self, family: Family, *, seed: int = 0) -> Path: ...


class WriteRecipe(Protocol):
    """Writes a recipe whose result is `expression`; keyword arguments are its sources.

    A source is a folder, or a mapping as the recipe has it. Returns the recipe's file; the result
    goes to the folder of its name without the suffix.
    """

    def __call__(self, expression: Any, **sources: Any) -> Path: ...


class Grow(Protocol):
    """Writes such a recipe, applies it, and returns the folder of the result."""

    def __call__(self, expression: Any, **sources: Any) -> Path: ...


@pytest.fixture(scope="package", autouse=True)
def _one_quiet_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    made: dict[tuple[str, int], Path] = {}

    def base(family: Family, *, seed: int = 0) -> Path:
        key = (repr(family), seed)
        if key not in made:
            made[key] = family.save(tmp_path_factory.mktemp(family.name), seed=seed)
        return made[key]

    return base


@pytest.fixture
def write_recipe(tmp_path: Path) -> WriteRecipe:
    numbers = itertools.count()

    def write_recipe(expression: Any, **sources: Any) -> Path:
        file = tmp_path / f"grown-{next(numbers)}.yaml"
        models = {
            name: source if isinstance(source, dict) else str(source)
            for name, source in sources.items()
        }
        recipe = {
            "models": models | {"grown": expression},
            "result": "grown",
            "output": {"path": file.stem},
        }
        file.write_text(json.dumps(recipe))  # which every YAML 1.2 parser reads
        return file

    return write_recipe


@pytest.fixture
def grow(write_recipe: WriteRecipe) -> Grow:
    def grow(expression: Any, **sources: Any) -> Path:
        file = write_recipe(expression, **sources)
        api.apply(api.plan(file))
        return file.with_suffix("")

    return grow
