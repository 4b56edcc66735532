"""A workbench for each test, and mergekit for all of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.methods.folders import Workbench
from tests.methods.oracle import Oracle


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


@pytest.fixture(scope="session")
def mergekit(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Oracle]:
    """mergekit 0.1.5 in one process, whose start takes seconds."""
    if not (ROOT / ".venv-mergekit").exists():
        pytest.skip("there is no .venv-mergekit: `make test` makes it")
    python = request.getfixturevalue("mergekit_python")
    with Oracle(python, tmp_path_factory.mktemp("mergekit")) as oracle:
        yield oracle
