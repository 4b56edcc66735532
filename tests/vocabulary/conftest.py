"""A workbench with models whose tokenizers differ."""

from pathlib import Path

import pytest

from tests.vocabulary.checkpoints import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)
