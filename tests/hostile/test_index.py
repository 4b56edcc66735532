"""Index files name files of their own folder and nothing else, and agree with what is there."""

import json
import os
from pathlib import Path

import pytest

from tensorsurgeon.checkpoint import INDEX_NAME, open_checkpoint
from tests.cli.checkpoints import read_index, tiny_llama, write_index
from tests.cli.conftest import Refused

CHECKPOINT = 5
"""The exit code of a source that cannot be read."""

SHARDS = tuple(f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3))


@pytest.mark.parametrize(
    "shard",
    [
        "../other/model.safetensors",
        "..\\other\\model.safetensors",
        "..%2fmodel.safetensors/../../x.safetensors",
        "/etc/model.safetensors",
        "\\\\server\\share\\model.safetensors",
        "C:model.safetensors",
        "C:\\model.safetensors",
        "file:///etc/model.safetensors",
        "sub/model.safetensors",
        "./model.safetensors",
        "model\0.safetensors",
        "model.safetensors\0.bin",
        "model.safetensors\n",
        "\x1b[2Jmodel.safetensors",
        "\u202emodel.safetensors",
        "\ud800model.safetensors",
        "..",
        ".",
        "",
        "weights.bin",
        "model.safetensors.bin",
        "MODEL.SAFETENSORS",
        None,
        7,
        True,
        ["model.safetensors"],
        {"file": "model.safetensors"},
    ],
)
def test_index_that_names_no_plain_file_is_refused(
    shard: object, sharded: Path, refused: Refused
) -> None:
    write_index(sharded, read_index(sharded) | {"model.norm.weight": shard})
    message = refused("inspect", sharded, code=CHECKPOINT)
    assert message.startswith(f"{sharded / INDEX_NAME}: ")
    if shard == "\ud800model.safetensors":
        assert "a lone surrogate in a string at byte " in message
        return
    place = (sharded / INDEX_NAME).read_text().index('"model.norm.weight": ') + 21
    shown = repr(shard).replace("\u202e", "\\u202e")
    assert message == (
        f"{sharded / INDEX_NAME}: tensor 'model.norm.weight' is said to be in {shown} "
        f"at byte {place}\n"
        "  fix: a shard is the plain name of a .safetensors file in the same folder\n"
    )


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        (b"", "an object is expected at byte 0"),
        (b"[]", "an object is expected at byte 0"),
        (b"\xef\xbb\xbf{}", "an object is expected at byte 0"),
        (b"{}", "has no 'weight_map' that names tensors"),
        (b'{"weight_map": {}}', "has no 'weight_map' that names tensors"),
        (b'{"weight_map": null}', "has no 'weight_map' that names tensors"),
        (b'{"weight_map": {"a": "b"', "tensor 'a' is said to be in 'b' at byte 21"),
        (b'{"weight_map": {"a": "b.safetensors"', "not JSON: ',' or '}' is expected at byte 36"),
        (b'{"weight_map": {"a": "b.safetensors", "a": 0}}', "duplicate key 'a' at byte 38"),
        (b'{"weight_map": {}, "weight_map": {}}', "duplicate key 'weight_map' at byte 19"),
        (b'{"metadata": {"a": 1, "a": 2}}', "duplicate key 'a', at byte 13"),
        (b'{"metadata": NaN}', "NaN is not JSON, at byte 13"),
        (b'{"weight_map": {"\xff": ""}}', "not UTF-8 at byte 17"),
        (b'{"weight_map": {"\\ud800": ""}}', "a lone surrogate in a string at byte 16"),
        (b"{} {}", "not JSON: something follows it at byte 3"),
        (b"{}\0", "not JSON: something follows it at byte 2"),
        (b'{"weight_map": ' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_index_that_is_none_is_refused(
    index: bytes, problem: str, sharded: Path, refused: Refused
) -> None:
    (sharded / INDEX_NAME).write_bytes(index)
    message = refused("inspect", sharded, code=CHECKPOINT)
    assert message.startswith(f"{sharded / INDEX_NAME}: {problem}")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [SHARDS[0], INDEX_NAME])
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_refused_and_not_waited_for(
    kind: str, name: str, sharded: Path, refused: Refused
) -> None:
    (sharded / name).unlink()
    if kind == "pipe":
        os.mkfifo(sharded / name)
    else:
        (sharded / name).mkdir()
    message = refused("inspect", sharded, code=CHECKPOINT)
    assert message == f"{sharded / name}: is not a regular file\n"


def test_shard_of_a_name_that_is_too_long_for_a_disk_is_missing(
    sharded: Path, refused: Refused
) -> None:
    write_index(sharded, read_index(sharded) | {"a": "n" * 5000 + ".safetensors"})
    message = refused("inspect", sharded, code=CHECKPOINT)
    assert "1 of 4 shards are missing: nnnn" in message
    assert len(message) < 1000


def test_tensor_in_two_shards_is_refused(sharded: Path, refused: Refused) -> None:
    """Whichever of the two the index names, readers that list shards would see both."""
    twin = tiny_llama(sharded.parent / "twin", seed=1, shards=3)
    (sharded / SHARDS[1]).write_bytes((twin / SHARDS[0]).read_bytes())
    message = refused("inspect", sharded, code=CHECKPOINT)
    assert message.startswith(f"{sharded}: tensor 'model.")
    assert f"' is both in {SHARDS[0]} and in {SHARDS[1]}\n" in message


def test_shards_that_the_index_does_not_name_are_noted_and_not_read(sharded: Path) -> None:
    expected = open_checkpoint(sharded)
    assert expected.notes == ()
    (sharded / "consolidated.safetensors").write_bytes(b"whatever")
    (sharded / "model-00001-of-00002\n.safetensors").write_bytes(b"")
    found = open_checkpoint(sharded)
    assert found.tensors == expected.tensors
    assert found.notes == (
        f"{sharded}: beside the weights, and not read: consolidated.safetensors, "
        "model-00001-of-00002\\n.safetensors",
    )


def test_shards_beside_a_single_file_are_noted_and_not_read(sharded: Path, tmp_path: Path) -> None:
    only = tiny_llama(tmp_path / "single") / "model.safetensors"
    (sharded / only.name).write_bytes(only.read_bytes())
    found = open_checkpoint(sharded)
    assert {tensor.path.name for tensor in found.tensors.values()} == {only.name}
    assert found.notes == (f"{sharded}: beside the weights, and not read: {', '.join(SHARDS)}",)


@pytest.mark.parametrize("total", [0, -1, 2**70, 1.5, "4 GB", "\x1b[2J" * 1000, [0], True])
def test_wrong_total_size_is_noted(total: object, sharded: Path) -> None:
    write_index(sharded, read_index(sharded), total_size=total)
    (note,) = open_checkpoint(sharded).notes
    tensors = open_checkpoint(sharded).tensors.values()
    assert note.startswith(f"{sharded / INDEX_NAME}: total_size is ")
    assert note.endswith(f", the tensors take {sum(tensor.spec.nbytes for tensor in tensors)}")
    assert note.isprintable()
    assert len(note) < 500


@pytest.mark.parametrize("kind", [int, float])
def test_right_total_size_or_none_is_nothing_to_note(kind: type, sharded: Path) -> None:
    nbytes = sum(tensor.spec.nbytes for tensor in open_checkpoint(sharded).tensors.values())
    write_index(sharded, read_index(sharded), total_size=kind(nbytes))
    assert open_checkpoint(sharded).notes == ()
    (sharded / INDEX_NAME).write_text(json.dumps({"weight_map": read_index(sharded)}))
    assert open_checkpoint(sharded).notes == ()
