"""Without a manifest what can be checked is checked, and what cannot is said."""

import json
import os
from pathlib import Path

import pytest

from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.verify import report_json, report_text, verify
from tests.cli.checkpoints import read_index, tiny_llama, write_index
from tests.verify.conftest import Problems


@pytest.mark.parametrize("shards", [1, 3])
def test_it_is_said_that_bytes_could_not_be_compared(shards: int, tmp_path: Path) -> None:
    report = verify(tiny_llama(tmp_path / "a", shards=shards), threads=2)
    assert report.problems == ()
    assert report.unchecked == (
        "the bytes of tensors and other files, and whether all are there: "
        "there is no tensorsurgeon.json",
    )
    text = report_text(report)
    assert "nothing wrong found" in text
    assert "not checked: the bytes of tensors" in text
    assert report_json(report)["unchecked"] == list(report.unchecked)


def test_other_weights_beside_are_named_and_not_read(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "a")
    (folder / "consolidated.safetensors").write_bytes(b"another form of the same weights")
    (folder / "original").mkdir()
    report = verify(folder, threads=1)
    assert report.problems == ()
    assert report.unchecked[1:] == ("what lies beside the weights: consolidated.safetensors",)


def test_broken_headers_and_config_are_all_told(tmp_path: Path, problems: Problems) -> None:
    folder = tiny_llama(tmp_path / "a", shards=3)
    first, second, _ = sorted(folder.glob("*.safetensors"))
    os.truncate(first, first.stat().st_size - 1)
    second.write_bytes(second.read_bytes() + b"\0")
    (folder / "config.json").write_text('{"a": NaN}')
    found = problems(folder).splitlines()
    assert len(found) == 3
    assert found[0].startswith(f"{first.name}: is cut short")
    assert found[1].startswith(f"{second.name}: has 1 bytes after its last tensor")
    assert found[2].startswith("config.json: ")


@pytest.mark.parametrize("change", ["moved", "forgotten", "invented"])
def test_index_that_disagrees_with_its_shards_is_found(
    change: str, tmp_path: Path, problems: Problems
) -> None:
    folder = tiny_llama(tmp_path / "a", shards=2)
    weight_map = read_index(folder)
    if change == "moved":
        weight_map["model.norm.weight"] = min(weight_map.values())
    elif change == "forgotten":
        del weight_map["model.norm.weight"]
    else:
        weight_map["model.norm.bias"] = min(weight_map.values())
    write_index(folder, weight_map)
    found = problems(folder)
    if change != "invented":
        assert "gives tensor 'model.norm.weight' another place than model-00002" in found
    if change != "forgotten":
        assert "which its shards do not hold" in found


def test_index_that_is_missing_is_asked_for(tmp_path: Path, problems: Problems) -> None:
    folder = tiny_llama(tmp_path / "a", shards=2)
    (folder / "model.safetensors.index.json").unlink()
    assert "has 2 safetensors files but no model.safetensors.index.json" in problems(folder)


def test_missing_shard_is_found(tmp_path: Path, problems: Problems) -> None:
    folder = tiny_llama(tmp_path / "a", shards=2)
    (folder / "model-00001-of-00002.safetensors").unlink()
    assert "model.safetensors.index.json: 1 of 2 shards are missing" in problems(folder)


def test_folder_without_weights_has_none(tmp_path: Path, problems: Problems) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    assert problems(folder) == f"{folder}: has no safetensors weights"


@pytest.mark.parametrize(("name", "what"), [("no", "no such folder"), ("file", "is not a folder")])
def test_what_is_no_folder_is_an_error(name: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=what):
        verify(tmp_path / name, threads=2)


def test_path_with_a_nul_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        verify(tmp_path / "a\0b", threads=2)
