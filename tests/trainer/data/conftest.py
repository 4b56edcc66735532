"""Tokenizers that the tests of the data share."""

from pathlib import Path

import pytest

from tensorsurgeon.trainer.data.tokenizer import Tokenizer, load_tokenizer
from tests.trainer.data.tokens import make_tokenizer


@pytest.fixture(scope="session")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of bytes, which puts nothing before a text."""
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "bytes")


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2: Path) -> Tokenizer:
    """The real one, with the chat template of its model."""
    return load_tokenizer(smollm2)
