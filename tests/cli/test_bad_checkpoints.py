"""Sources that are damaged, half there or hostile: refused by file and tensor, nothing written."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.checkpoints import (
    read_index,
    tiny_llama,
    write_index,
)
from tests.cli.conftest import Refused, WriteRecipe

CHECKPOINT = 5
"""The exit code of a source that cannot be read."""

INDEX = "model.safetensors.index.json"
SHARDS = tuple(f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3))

LFS_POINTER = b"""\
version https://git-lfs.github.com/spec/v1
oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
size 4943162336
"""


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A Llama of two layers in three shards."""
    return tiny_llama(tmp_path / "source", shards=3)


@pytest.fixture
def apply_refused(sharded: Path, recipe: WriteRecipe, refused: Refused) -> Callable[[], str]:
    """Applies a recipe that copies the sharded model, which is refused as a bad source."""

    def apply() -> str:
        path = recipe("models: {m: ./source}\nresult: m\noutput: {path: ./out}\n")
        return refused("apply", path, code=CHECKPOINT)

    return apply


def test_missing_shards_are_all_named(sharded: Path, apply_refused: Callable[[], str]) -> None:
    for name in SHARDS[:2]:
        (sharded / name).unlink()
    assert apply_refused() == (
        f"{sharded / INDEX}: 2 of 3 shards are missing: {SHARDS[0]}, {SHARDS[1]}\n"
        "  fix: download the missing files\n"
    )


@pytest.mark.parametrize(
    ("length", "problem"),
    [
        (0, "is 0 bytes long; a safetensors file has at least 8"),
        (7, "is 7 bytes long; a safetensors file has at least 8"),
        (100, "header of {header} bytes at offset 8 does not fit the file of 100 bytes\n  fix: "),
        (-1, "is cut short: {cut} bytes, but its tensors end at {size} (the last is 'model.layers"),
    ],
)
def test_shard_that_is_cut_short_is_refused(
    length: int, problem: str, sharded: Path, apply_refused: Callable[[], str]
) -> None:
    shard = sharded / SHARDS[1]
    size = shard.stat().st_size
    (header,) = struct.unpack("<Q", shard.read_bytes()[:8])
    cut = length if length >= 0 else size + length
    os.truncate(shard, cut)
    expected = problem.format(header=header, size=size, cut=cut)
    assert apply_refused().startswith(f"{shard}: {expected}")


def test_shard_that_is_too_long_is_refused(sharded: Path, apply_refused: Callable[[], str]) -> None:
    shard = sharded / SHARDS[1]
    shard.write_bytes(shard.read_bytes() + b"more")
    assert apply_refused().startswith(f"{shard}: has 4 bytes after its last tensor, at offset ")


def test_tensor_of_the_index_that_its_shard_lacks_is_named(
    sharded: Path, apply_refused: Callable[[], str]
) -> None:
    write_index(sharded, read_index(sharded) | {"model.ghost": SHARDS[0]})
    assert apply_refused() == (
        f"{sharded / INDEX}: tensor 'model.ghost' is in the index, but not in its shard "
        f"{SHARDS[0]}\n  fix: index and shards are of different downloads: "
        "download all of them again\n"
    )


def test_tensor_of_a_shard_that_the_index_lacks_is_named(
    sharded: Path, apply_refused: Callable[[], str]
) -> None:
    weight_map = read_index(sharded)
    del weight_map["model.norm.weight"]
    write_index(sharded, weight_map)
    problem = f"shard {SHARDS[2]} holds tensor 'model.norm.weight', which the index does not name"
    assert apply_refused().startswith(f"{sharded / INDEX}: {problem}\n  fix: ")


def test_tensor_that_the_index_puts_elsewhere_is_named(
    sharded: Path, apply_refused: Callable[[], str]
) -> None:
    write_index(sharded, read_index(sharded) | {"model.norm.weight": SHARDS[0]})
    problem = f"holds tensor 'model.norm.weight', which the index says is in {SHARDS[0]}"
    assert f"{problem}\n  fix: " in apply_refused()


def test_shards_without_an_index_are_refused(
    sharded: Path, apply_refused: Callable[[], str]
) -> None:
    (sharded / INDEX).unlink()
    assert apply_refused() == (
        f"{sharded}: has 3 safetensors files but no {INDEX}\n"
        "  fix: download the index file as well\n"
    )


def test_git_lfs_pointer_in_place_of_a_shard_is_told_from_a_damaged_one(
    sharded: Path, apply_refused: Callable[[], str]
) -> None:
    (sharded / SHARDS[1]).write_bytes(LFS_POINTER)
    assert apply_refused() == (
        f"{sharded / SHARDS[1]}: is a Git LFS pointer, not the file itself\n"
        "  fix: run 'git lfs pull' in that folder, or download it again with 'hf download'\n"
    )


def test_pickles_are_never_opened_and_the_way_out_is_told(
    sharded: Path, apply_refused: Callable[[], str]
) -> None:
    for path in [*sharded.glob("*.safetensors"), sharded / INDEX]:
        path.unlink()
    (sharded / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.")
    message = apply_refused()
    assert f"{sharded}: has no safetensors weights, only pytorch_model.bin\n  fix: " in message
    assert "call save_pretrained(folder), which writes safetensors" in message


CONFIGS = {
    "empty": ("", "not JSON: Expecting value at line 1 column 1"),
    "cut short": ('{"num_hidden_layers": ', "not JSON: Expecting value at line 1 column 23"),
    "a list": ("[]", "a JSON list where an object is expected"),
    "a Git LFS pointer": (LFS_POINTER.decode(), "not JSON: "),
    "not a number": ('{"rope_theta": NaN}', "NaN is not JSON"),
    "a number beyond all": ('{"rope_theta": 1e999}', "1e999 is too large a number"),
    "a key twice": ('{"vocab_size": 1, "vocab_size": 2}', "duplicate key 'vocab_size'"),
    "half a character": ('{"model_type": "\\ud800"}', "a lone surrogate in a string"),
    "deep": ('{"a": ' + "[" * 500 + "]" * 500 + "}", "nested too deeply"),
    "very deep": ('{"a": ' + "[" * 100_000, "nested too deeply"),
    "huge": (" " * 5_000_001, "is larger than 5000000 bytes"),
}


@pytest.mark.parametrize(("config", "problem"), CONFIGS.values(), ids=CONFIGS.keys())
def test_config_that_is_broken_is_refused(
    config: str, problem: str, sharded: Path, apply_refused: Callable[[], str]
) -> None:
    (sharded / "config.json").write_text(config)
    assert apply_refused().startswith(f"{sharded / 'config.json'}: {problem}")


def test_folder_without_a_config_is_refused(
    sharded: Path, apply_refused: Callable[[], str]
) -> None:
    (sharded / "config.json").unlink()
    assert apply_refused() == (
        f"{sharded / 'config.json'}: is not there\n"
        "  fix: a source is the folder that holds config.json\n"
    )
