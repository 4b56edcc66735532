"""Every byte of a folder counts: flipped, lost, added or exchanged, it is found."""

import os
import shutil
from pathlib import Path

import pytest

from tensorsurgeon.checkpoint.header import read_header
from tensorsurgeon.verify import report_json, report_text, verify
from tests.verify.checkpoints import tiny_checkpoint
from tests.verify.conftest import Problems

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.mark.parametrize("shards", [1, 2])
def test_sound_checkpoint_has_no_problem(shards: int, tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "out", shards=shards)
    report = verify(folder, threads=2)
    assert (report.problems, report.unchecked) == ((), ())
    assert report.manifest
    assert report.tensors == 5
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert report.files == len(sizes)
    assert report.nbytes == sum(sizes.values()) - sizes["tensorsurgeon.json"]
    assert report_text(report).startswith(f"{folder}: sound\n{len(sizes)} files and 5 tensors")
    assert report_json(report)["problems"] == []


@pytest.mark.parametrize("shards", [1, 2])
def test_every_flipped_byte_is_found(shards: int, tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "out", shards=shards)
    missed, count = [], 0
    for path in sorted(folder.iterdir()):
        for at in range(path.stat().st_size):
            with path.open("r+b", buffering=0) as file:
                before = os.pread(file.fileno(), 1, at)
                os.pwrite(file.fileno(), bytes([before[0] ^ 1 << at % 8]), at)
                found = verify(folder, threads=1).problems
                os.pwrite(file.fileno(), before, at)
            count += 1
            if not any(str(path) in problem.where for problem in found):
                missed.append((path.name, at))
    assert missed == []
    assert count > 3000
    assert verify(folder, threads=1).problems == ()


def test_flipped_bit_is_told_with_its_tensor_alone(folder: Path, problems: Problems) -> None:
    path = folder / "model.safetensors"
    flip(path, read_header(path)["model.norm.weight"].offset)
    assert problems(folder) == (
        "model.safetensors: tensor 'model.norm.weight': its bytes differ from those that the "
        "manifest was made for"
    )


def test_all_problems_are_told_not_only_the_first(sharded: Path, problems: Problems) -> None:
    for shard in (FIRST, SECOND):
        for tensor in read_header(sharded / shard).values():
            flip(sharded / shard, tensor.offset)
    (sharded / "tokenizer.json").unlink()
    (sharded / "pytorch_model.bin").write_bytes(b"a pickle")
    found = problems(sharded).splitlines()
    assert len(found) == 7
    assert "tokenizer.json: is missing" in found
    assert "pytorch_model.bin: is a file that the manifest does not name" in found


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", FIRST, "model.safetensors.index.json"]
)
def test_missing_file_is_found(name: str, sharded: Path, problems: Problems) -> None:
    (sharded / name).unlink()
    assert f"{name}: is missing" in problems(sharded)


def test_file_beside_the_checkpoint_is_no_part_of_it(folder: Path, problems: Problems) -> None:
    for name in ("README.md", "LICENSE", "LICENSE.txt", ".gitattributes", ".gitignore"):
        (folder / name).write_text("what people and the Hub put there")
    (folder / ".git").mkdir()
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    assert problems(folder) == ""
    (folder / "README.txt").touch()
    (folder / "onnx").mkdir()
    assert problems(folder).splitlines() == [
        "README.txt: is a file that the manifest does not name",
        "onnx: is a folder that the manifest does not name",
    ]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("change", [-1, 1])
def test_file_of_another_length_is_found(
    name: str, change: int, folder: Path, problems: Problems
) -> None:
    size = (folder / name).stat().st_size
    os.truncate(folder / name, size + change)
    assert f"{name}: is {size + change} bytes long; the manifest says {size}" in problems(folder)


def test_shard_cut_to_nothing_is_found(sharded: Path, problems: Problems) -> None:
    os.truncate(sharded / FIRST, 0)
    found = problems(sharded)
    assert f"{FIRST}: is 0 bytes long; the manifest says" in found
    assert f"{FIRST}: ends before the end of tensors 'model.embed_tokens.weight'" in found
    assert SECOND not in found


@pytest.mark.parametrize("size", [0, 1, 100])
def test_manifest_cut_short_is_found(size: int, folder: Path) -> None:
    os.truncate(folder / "tensorsurgeon.json", size)
    report = verify(folder, threads=2)
    assert [p.where for p in report.problems] == [str(folder / "tensorsurgeon.json")]
    assert not report.manifest
    assert "tensorsurgeon.json cannot be used" in report.unchecked[0]


def test_exchanged_tensors_of_one_size_are_found(folder: Path, problems: Problems) -> None:
    path = folder / "model.safetensors"
    tensors = read_header(path)
    one, other = (tensors[f"model.layers.{layer}.up.weight"] for layer in (0, 1))
    data = bytearray(path.read_bytes())
    first, second = (slice(t.offset, t.offset + t.spec.nbytes) for t in (one, other))
    data[first], data[second] = data[second], data[first]
    path.write_bytes(data)
    assert problems(folder).count("its bytes differ") == 2


def test_exchanged_names_in_a_header_are_found(folder: Path, problems: Problems) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    data = data.replace(b"layers.0.", b"layers.#.").replace(b"layers.1.", b"layers.0.")
    path.write_bytes(data.replace(b"layers.#.", b"layers.1."))
    found = problems(folder)
    assert "tensor 'model.layers.0.up.weight': BF16 [4, 2] at byte" in found
    assert "its header: its bytes differ" in found


def test_exchanged_shards_are_found(sharded: Path, problems: Problems) -> None:
    (sharded / FIRST).rename(sharded / "other")
    (sharded / SECOND).rename(sharded / FIRST)
    (sharded / "other").rename(sharded / SECOND)
    found = problems(sharded)
    assert f"{FIRST}: lacks tensors 'model.embed_tokens.weight'" in found
    assert f"{FIRST}: holds tensors" in found
    assert "model.safetensors.index.json: gives tensors" in found


def test_stale_shard_is_found(sharded: Path, problems: Problems) -> None:
    shutil.copy(sharded / FIRST, sharded / "model-00003-of-00003.safetensors")
    assert problems(sharded) == (
        "model-00003-of-00003.safetensors: is a file that the manifest does not name"
    )


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)
