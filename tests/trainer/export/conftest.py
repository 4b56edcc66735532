"""What the tests of the written checkpoint share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.checkpoints import tiny_llama
from tests.trainer.export.jobs import Job, make_job
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


@pytest.fixture
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return make_job(tmp_path_factory.mktemp("job"))


@pytest.fixture
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of another model."""
    folder = tmp_path_factory.mktemp("old") / "out"
    tiny_llama(folder, 2, shards=1)
    return folder
