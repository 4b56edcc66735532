"""What is frozen is in no checkpoint of a training, and is as it was when one is gone on from."""

import shutil
from pathlib import Path

import pytest

from tensorsurgeon.trainer.saved_index import SavedReader
from tests.trainer.interrupted import written
from tests.trainer.ranks import on_ranks
from tests.trainer.runs import losses_of, train_quietly, write_run

Tokens = tuple[Path, Path]

FROZEN = ("embed_tokens", "lm_head", "layers.0.", "layers.1.")


@pytest.mark.parametrize("world", [1, 2])
def test_training_of_some_layers_goes_on_bit_for_bit_without_the_others_in_its_checkpoint(
    world: int, random_llama: Path, tokens: Tokens, tmp_path: Path
) -> None:
    run = write_run(
        tmp_path / "run.yaml",
        random_llama,
        tokens,
        groups=[
            {"match": "layers 0-1", "frozen": True},
            {"match": "@embeddings", "frozen": True},  # and with them the head
        ],
        batch={"sequences": 4, "micro": 2},
        output={"path": "./out"},
    )
    on_ranks(world, train_quietly, run)
    whole, result = losses_of(run), written(tmp_path / "out")
    checkpoints = tmp_path / "run" / "checkpoints"
    names = SavedReader(checkpoints / "step-00000004").read_metadata().state_dict_metadata
    assert any("layers.2." in name for name in names)
    assert not [name for name in names if any(part in name for part in FROZEN)]
    shutil.rmtree(checkpoints / "step-00000008")
    shutil.rmtree(tmp_path / "out")
    on_ranks(world, train_quietly, run)
    assert losses_of(run) == whole
    assert written(tmp_path / "out") == result
