"""Sources that are damaged, half there or hostile: refused by file and tensor, nothing written."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.checkpoints import (
    entry,
    read_index,
    shard_bytes,
    tiny_llama,
    write_index,
)
from tests.cli.conftest import Command, Refused, WriteRecipe

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


@pytest.mark.parametrize(
    "shard",
    [
        "../other/model.safetensors",
        "..\\other\\model.safetensors",
        "/etc/model.safetensors",
        "C:model.safetensors",
        "sub/model.safetensors",
        "model\0.safetensors",
        "\x1b[2Jmodel.safetensors",
        "..",
        "",
        "weights.bin",
        None,
        7,
        ["model.safetensors"],
    ],
)
def test_index_that_names_no_plain_file_is_refused(
    shard: object, sharded: Path, apply_refused: Callable[[], str]
) -> None:
    weight_map = read_index(sharded) | {"model.norm.weight": shard}
    write_index(sharded, weight_map)
    assert apply_refused() == (
        f"{sharded / INDEX}: tensor 'model.norm.weight' is said to be in {shard!r}\n"
        "  fix: a shard is the plain name of a .safetensors file in the same folder\n"
    )


def test_shard_that_is_a_link_out_of_its_folder_is_refused(
    sharded: Path, tmp_path: Path, apply_refused: Callable[[], str]
) -> None:
    (sharded / SHARDS[0]).rename(tmp_path / "elsewhere.safetensors")
    (sharded / SHARDS[0]).symlink_to(tmp_path / "elsewhere.safetensors")
    problem = f"shard '{SHARDS[0]}' is a link that leaves its folder"
    assert apply_refused().startswith(f"{sharded}: {problem}")


def test_links_of_the_hub_cache_are_followed(
    tmp_path: Path, recipe: WriteRecipe, command: Command
) -> None:
    blobs, snapshot = tmp_path / "repo" / "blobs", tmp_path / "repo" / "snapshots" / "abc"
    tiny_llama(blobs, shards=3)
    snapshot.mkdir(parents=True)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(Path("../../blobs", blob.name))
    path = recipe("models: {m: ./repo/snapshots/abc}\nresult: m\noutput: {path: ./out}\n")
    assert command("apply", path).code == 0


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        ("", "not JSON: Expecting value at line 1 column 1"),
        ("[]", "a JSON list where an object is expected"),
        ("{}", "has no 'weight_map' that names tensors"),
        ('{"weight_map": {}}', "has no 'weight_map' that names tensors"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "duplicate key 'a'"),
        ('{"weight_map": ' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_index_that_is_none_is_refused(
    index: str, problem: str, sharded: Path, apply_refused: Callable[[], str]
) -> None:
    (sharded / INDEX).write_text(index)
    assert apply_refused().startswith(f"{sharded / INDEX}: {problem}")


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


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [SHARDS[0], INDEX, "config.json"])
def test_pipe_in_place_of_a_file_is_refused_and_not_waited_for(
    name: str, sharded: Path, apply_refused: Callable[[], str]
) -> None:
    (sharded / name).unlink()
    os.mkfifo(sharded / name)
    assert str(sharded) in apply_refused()


def test_folder_in_place_of_a_shard_is_refused(
    sharded: Path, apply_refused: Callable[[], str]
) -> None:
    (sharded / SHARDS[0]).unlink()
    (sharded / SHARDS[0]).mkdir()
    assert apply_refused() == f"{sharded / SHARDS[0]}: is not a regular file\n"


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
    "huge": (" " * 10_000_001, "is larger than 10000000 bytes"),
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


HEADERS = {
    "a length of 2^63": (
        struct.pack("<Q", 2**63) + b"{}",
        "header of 9223372036854775808 bytes at offset 8 does not fit the file of 10 bytes",
    ),
    "a length of 2^64 - 1": (
        struct.pack("<Q", 2**64 - 1) + b"{}",
        f"header of {2**64 - 1} bytes at offset 8",
    ),
    "a header of 30 MB": (
        struct.pack("<Q", 30_000_000) + b"{" + b" " * 30_000_000,
        "header of 30000000 bytes is over the limit of 25000000",
    ),
    "no header": (bytes(8), "header at offset 8 does not begin with '{'"),
    "a hole": (
        shard_bytes({"a": entry("U8", [1], 0, 1), "b": entry("U8", [1], 2, 3)}, b"abc"),
        "tensor 'b': a hole in the data at offset 1",
    ),
    "an overlap": (
        shard_bytes({"a": entry("U8", [2], 0, 2), "b": entry("U8", [2], 1, 3)}, b"abc"),
        "tensor 'b': an overlap in the data at offset 2",
    ),
    "offsets beyond 2^64": (
        shard_bytes({"a": entry("U8", [1], 2**64, 2**64 + 1)}, b"a"),
        "tensor 'a': data_offsets are not two whole numbers",
    ),
    "negative offsets": (
        shard_bytes({"a": entry("U8", [1], -1, 0)}, b"a"),
        "tensor 'a': data_offsets are not two whole numbers",
    ),
    "more elements than bytes": (
        shard_bytes({"a": entry("F32", [2**40], 0, 4)}, b"abcd"),
        f"tensor 'a': offsets 0 to 4 hold 4 bytes, the shape needs {2**42}",
    ),
    "a shape that overflows": (
        shard_bytes({"a": entry("U8", [2**63, 4, 0], 0, 0)}),
        "tensor 'a': the shape has more elements than 64 bits can count",
    ),
    "a rank of 65": (
        shard_bytes({"a": entry("U8", [1] * 65, 0, 1)}, b"a"),
        "tensor 'a': rank 65 is over 64",
    ),
    "a tensor twice": (
        shard_bytes(b'{"a": {}, "a": {}}'),
        "header: duplicate key 'a'",
    ),
    "metadata of numbers": (
        shard_bytes({"__metadata__": {"step": 3}}),
        "__metadata__ 'step' is not a string",
    ),
    "part of a byte": (
        shard_bytes({"a": entry("F4", [3], 0, 2)}, b"ab"),
        "tensor 'a': 3 elements of 4 bits do not fill whole bytes",
    ),
}


@pytest.mark.parametrize(("content", "problem"), HEADERS.values(), ids=HEADERS.keys())
def test_file_that_breaks_a_rule_of_the_format_is_refused_with_the_rule(
    content: bytes, problem: str, tmp_path: Path, refused: Refused
) -> None:
    folder = tiny_llama(tmp_path / "source")
    (folder / "model.safetensors").write_bytes(content)
    message = refused("inspect", folder, code=CHECKPOINT)
    assert message.startswith(f"{folder / 'model.safetensors'}: {problem}")
