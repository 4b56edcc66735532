"""Config and tensors speak of the same model, and no sound model is accused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorsurgeon.verify import verify
from tests.cli.checkpoints import llama_config, llama_tensors, tiny_llama, write_checkpoint
from tests.verify.checkpoints import change_config, with_manifest
from tests.verify.conftest import Problems, told

TIED = {"tie_word_embeddings": True}


def test_config_of_another_depth_is_found(tmp_path: Path, problems: Problems) -> None:
    folder = tiny_llama(tmp_path / "a", 3)
    change_config(folder, num_hidden_layers=4)
    assert "config.json: config.json says 4 layers, which no tensor names number" in problems(
        folder
    )


def test_layer_map_of_another_depth_is_found(tmp_path: Path, problems: Problems) -> None:
    folder = with_manifest(tiny_llama(tmp_path / "a", 3))
    found = problems(folder)
    assert found == "config.json: says 3 layers; the manifest's layer map has 2"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"vocab_size": 17}, "vocab_size 17, hidden_size 8, but 'model.embed_tokens.weight'"),
        ({"hidden_size": 9}, "hidden_size 9, but 'model.norm.weight' is [8]"),
    ],
)
def test_config_of_another_width_is_found(
    settings: dict[str, Any], said: str, tmp_path: Path, problems: Problems
) -> None:
    folder = tiny_llama(tmp_path / "a")
    change_config(folder, **settings)
    assert said in problems(folder)


@pytest.mark.parametrize("manifest", [False, True])
def test_head_that_is_not_the_embedding_it_is_tied_to_is_found(
    manifest: bool, tmp_path: Path, problems: Problems
) -> None:
    folder = tiny_llama(tmp_path / "a")
    change_config(folder, **TIED)
    if manifest:
        with_manifest(folder)
    assert problems(folder) == (
        "config.json: says that the output head is the embedding (tie_word_embeddings), "
        "but 'lm_head.weight' differs from 'model.embed_tokens.weight'"
    )


def test_head_of_another_shape_than_the_embedding_it_is_tied_to_is_found(
    tmp_path: Path, problems: Problems
) -> None:
    tensors = llama_tensors()
    tensors["lm_head.weight"] = tensors["lm_head.weight"][1:]
    folder = write_checkpoint(tmp_path / "a", tensors, {**llama_config(), **TIED})
    assert "'lm_head.weight' differs" in problems(folder)


def test_head_that_is_the_embedding_may_be_stored(tmp_path: Path, problems: Problems) -> None:
    tensors = llama_tensors()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    folder = write_checkpoint(tmp_path / "a", tensors, {**llama_config(), **TIED})
    assert problems(folder) == ""


def test_head_that_is_lacking_is_found(tmp_path: Path, problems: Problems) -> None:
    tensors = llama_tensors()
    del tensors["lm_head.weight"]
    folder = write_checkpoint(tmp_path / "a", tensors)
    assert "says that the output head is not the embedding" in problems(folder)
    change_config(folder, **TIED)
    assert problems(folder) == ""
    change_config(folder, tie_word_embeddings=False, architectures=["LlamaModel"])
    assert problems(folder) == ""


def test_what_the_config_leaves_open_is_not_checked(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "a")
    change_config(folder, "tie_word_embeddings", "vocab_size")
    report = verify(folder, threads=1)
    assert report.problems == ()
    assert report.unchecked[1:] == (
        f"{folder}/config.json: the shape of 'model.embed_tokens.weight', which it does not give",
        f"{folder}/config.json: whether the output head is tied",
    )
    change_config(folder, "num_hidden_layers")
    report = verify(folder, threads=1)
    assert report.problems == ()
    assert "config.json: depth: config.json does not say" in report.unchecked[1]


def test_layers_that_predict_further_tokens_are_no_other_depth(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "a", 3)
    change_config(folder, num_hidden_layers=2, num_nextn_predict_layers=1)
    report = verify(folder, threads=1)
    assert report.problems == ()
    assert "depth" in report.unchecked[1]


def test_layer_that_is_passed_many_times_is_no_other_depth(
    tmp_path: Path, problems: Problems
) -> None:
    tensors = {"encoder.albert_layer_groups.0.ffn.weight": np.zeros((2, 2), np.float32)}
    config = {"num_hidden_layers": 12, "num_hidden_groups": 1}
    assert problems(write_checkpoint(tmp_path / "a", tensors, config)) == ""


def test_quantized_embedding_has_no_shape_to_compare(tmp_path: Path) -> None:
    tensors = llama_tensors()
    tensors["model.embed_tokens.weight"] = np.zeros((16, 4), np.uint8)
    report = verify(write_checkpoint(tmp_path / "a", tensors), threads=1)
    assert told(report) == ""
    assert "vocab_size" in report.unchecked[1]


def test_several_towers_as_deep_as_the_config_says_are_left_open(tmp_path: Path) -> None:
    tensors = {
        f"{side}.layers.{layer}.weight": np.zeros((2, 2), np.float32)
        for side in ("encoder", "decoder")
        for layer in range(2)
    }
    report = verify(write_checkpoint(tmp_path / "a", tensors, {"num_hidden_layers": 2}), threads=1)
    assert report.problems == ()
    assert "several name patterns fit" in report.unchecked[1]
