"""Tiny models and token shards that the trainer's tests share; each is made once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.trainer.refusals import Trainer
from tests.trainer.runs import prepare_tokens, tiny_llama, train_quietly, write_run
from tests.trainer.warm import Warm, warm


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def random_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of four layers that has learned nothing."""
    return tiny_llama(tmp_path_factory.mktemp("random") / "llama")


@pytest.fixture(scope="session")
def tokens(random_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Token shards to learn from, and held-out ones."""
    return prepare_tokens(tmp_path_factory.mktemp("tokens"), random_llama)


@pytest.fixture(scope="session")
def base(
    random_llama: Path, tokens: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same after it has learned something, so that surgery can make it worse."""
    folder = tmp_path_factory.mktemp("base")
    run = write_run(
        folder / "run.yaml",
        random_llama,
        tokens,
        steps=150,
        batch={"sequences": 8, "micro": 8},
        optimizer={"learning_rate": 1e-2},
        evaluate={"every": 150},
        log={"layers": 150},
        checkpoint={"every": 150},
        output={"path": str(folder / "base")},
    )
    torch.set_num_threads(1)
    outcome = train_quietly(run)
    assert outcome.first is not None
    assert outcome.last is not None
    assert outcome.last.loss < outcome.first.loss - 2
    assert outcome.path is not None
    return outcome.path


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """`tensorsurgeon train …`, whose imports are made once for all tests of a file."""
    with warm(tmp_path_factory.mktemp("told")) as made:
        yield made


@pytest.fixture
def trainer(
    command: Warm, random_llama: Path, tokens: tuple[Path, Path], tmp_path: Path
) -> Trainer:
    return Trainer(command=command, model=random_llama, tokens=tokens, folder=tmp_path)
