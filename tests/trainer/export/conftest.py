"""What the tests of the written checkpoint share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainer.export.models import alone, make_grown


@pytest.fixture(autouse=True)
def _group() -> Iterator[None]:
    with alone():
        yield


@pytest.fixture(scope="session")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grown model whose head is its embedding; nobody changes it."""
    return make_grown(tmp_path_factory.mktemp("tied"), tied=True)


@pytest.fixture(scope="session")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grown model with a head of its own; nobody changes it."""
    return make_grown(tmp_path_factory.mktemp("untied"), tied=False)
