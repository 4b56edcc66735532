"""The command line's fixtures, which serve here as well, and models that others have prepared."""

from pathlib import Path

import pytest

from tests.cli.checkpoints import tiny_llama
from tests.cli.conftest import command, models, recipe, refused

__all__ = ["command", "models", "recipe", "refused"]


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A Llama of two layers in three shards."""
    return tiny_llama(tmp_path / "source", shards=3)


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """The same in one file."""
    return tiny_llama(tmp_path / "source")
