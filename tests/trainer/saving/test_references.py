"""The log-probabilities of the reference survive an interruption, as far as they were computed."""

import os
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.modules.module import register_module_forward_hook
from transformers import LlamaModel

from tensorsurgeon.errors import OutputError, ResumeError
from tensorsurgeon.trainer.data import tokenizer_digest
from tensorsurgeon.trainer.data.shard_writer import writing_shards
from tensorsurgeon.trainer.learner import make_learner
from tensorsurgeon.trainer.parallel import Ranks
from tensorsurgeon.trainer.references import reference_log_probs
from tensorsurgeon.trainer.run_file import read_run
from tensorsurgeon.trainer.setup import set_up
from tests.trainer.data.tokens import document
from tests.trainer.runs import write_run
from tests.trainer.saving.ranks import outcomes, run

PAIRS = 120
BLOCK = 16
"""Batches that each rank computes before anything is written."""


@pytest.fixture(scope="module")
def pairs(random_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token shards of pairs, of which a sample has room for one or two."""
    folder = tmp_path_factory.mktemp("pairs") / "shards"
    with writing_shards(
        folder,
        kind="preference",
        tokenizer=tokenizer_digest(random_llama),
        vocabulary=384,
        end_of_document=0,
        shard_size=10_000,
    ) as writer:
        lengths = [9 + number % 17 for number in range(2 * PAIRS)]
        tokens = [[1, 2, 3, *range(7 + n, 7 + n + length)] for n, length in enumerate(lengths)]
        writer.add([document(each, [False] * 3 + [True] * (len(each) - 3)) for each in tokens])
    return folder


@pytest.fixture
def file(random_llama: Path, pairs: Path, tmp_path: Path) -> Path:
    """A run file that learns from them."""
    batch = {"sequences": 4, "micro": 1}
    (tmp_path / "run").mkdir()
    return write_run(tmp_path / "run.yaml", random_llama, (pairs, pairs), stage="dpo", batch=batch)


def compute(file: Path, killed_at: int = 0) -> tuple[int, Tensor]:
    """How often this rank used the model, and the table; it is killed in one of those passes."""
    given, cpu, size = read_run(file), torch.device("cpu"), dist.get_world_size()
    mesh = init_device_mesh("cpu", (size,))
    ranks = Ranks(rank=dist.get_rank(), size=size, device=cpu, mesh=mesh, precision=torch.float32)
    setup = set_up(given, device=cpu, ranks=size)
    learner = make_learner(setup.model, setup.checkpoint, ranks, given.settings.engine)
    passes = 0

    def count(module: nn.Module, *_: object) -> None:
        nonlocal passes
        passes += isinstance(module, LlamaModel)
        if killed_at and passes == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    with register_module_forward_hook(count):
        shards = setup.data.sources[0].shards
        table = reference_log_probs(given, shards, learner, "it", ranks, every=0)
    return passes, table


def stored(file: Path) -> Path:
    (path,) = file.with_suffix("").glob("reference-*.safetensors")
    return path


@pytest.mark.parametrize("world", [1, 2])
def test_what_was_computed_before_a_kill_is_not_computed_again(world: int, file: Path) -> None:
    whole = run(world, compute, file)
    assert load_file(stored(file)).keys() == {"log_probs"}
    stored(file).unlink()
    assert outcomes(world, compute, file, BLOCK + 5) == [None] * world
    known = load_file(stored(file))["known"]
    assert 0 < known.sum() < PAIRS
    for (all_passes, table), (passes, again) in zip(whole, run(world, compute, file), strict=True):
        assert passes == all_passes - BLOCK
        assert torch.equal(again, table)
        assert (table < 0).all()
    assert load_file(stored(file)).keys() == {"log_probs"}
    assert [passes for passes, _ in run(world, compute, file)] == [0] * world


def test_other_ranks_go_on_with_what_some_have_computed(file: Path) -> None:
    ((_, whole),) = run(1, compute, file)
    stored(file).unlink()
    assert outcomes(2, compute, file, BLOCK + 5) == [None, None]
    begun = load_file(stored(file))
    ((_, table),) = run(1, compute, file)
    assert torch.allclose(table, whole, atol=1e-4)
    kept = (table == begun["log_probs"]).all(1) & begun["known"]
    assert kept.sum() >= begun["known"].sum() / 2


@pytest.mark.parametrize(
    "damage",
    [
        {"known": torch.zeros(PAIRS, dtype=torch.bool)},
        {"log_probs": torch.zeros(PAIRS, 3)},
        {"log_probs": torch.zeros(PAIRS, 2), "known": torch.zeros(PAIRS)},
        {"log_probs": torch.zeros(PAIRS, 2), "known": torch.zeros(7, dtype=torch.bool)},
    ],
)
def test_table_of_another_form_is_an_error(damage: dict[str, Tensor], file: Path) -> None:
    assert outcomes(1, compute, file, BLOCK + 5) == [None]
    save_file(damage, stored(file))
    (error,) = outcomes(1, compute, file)
    assert isinstance(error, ResumeError)
    assert str(error) == f"{stored(file)}: is damaged\n  fix: remove it: it is made again"


def test_table_that_cannot_be_written_is_an_error_of_every_rank(file: Path) -> None:
    assert outcomes(1, compute, file, BLOCK + 5) == [None]
    stored(file).with_name(f"{stored(file).name}.part").mkdir()
    for error in outcomes(2, compute, file):
        assert isinstance(error, OutputError)
        assert f"{stored(file)}: writing failed: Is a directory" in str(error)
