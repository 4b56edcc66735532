"""A stranger's folder: problems or our own errors, no hang, nothing raw on a terminal."""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tensorsurgeon.checkpoint import read_manifest
from tensorsurgeon.checkpoint.header import read_header
from tensorsurgeon.errors import TensorSurgeonError
from tensorsurgeon.explain import explain, explanation_text
from tensorsurgeon.specs import DType
from tensorsurgeon.verify import report_text, verify
from tensorsurgeon.verify.second_reader import unknown_dtypes
from tests.verify.checkpoints import change_manifest, tiny_checkpoint, tiny_tensors, with_manifest
from tests.verify.conftest import Problems

FILES = ["config.json", "model.safetensors", "tensorsurgeon.json", "tokenizer.json"]


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def to_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def to_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_link_outside(path: Path) -> None:
    target = path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(target)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (to_pipe, "is not a regular file"),
        (to_device, "is not a regular file"),
        (to_loop, "is a link that leads nowhere"),
        (to_folder, "is a folder, not a file"),
        (to_link_outside, "is a link that leaves its folder"),
    ],
)
def test_what_is_no_file_of_the_folder_is_not_opened(
    change: Callable[[Path], None], what: str, name: str, folder: Path, problems: Problems
) -> None:
    change(folder / name)
    assert f"{name}: {what}" in problems(folder)


def test_snapshot_of_the_hubs_cache_is_sound(tmp_path: Path, problems: Problems) -> None:
    repo = tmp_path / "models--a--b"
    snapshot = repo / "snapshots" / "0123"
    tiny_checkpoint(snapshot)
    (repo / "blobs").mkdir()
    for index, path in enumerate(sorted(snapshot.iterdir())):
        path.rename(repo / "blobs" / str(index))
        path.symlink_to(f"../../blobs/{index}")
    assert problems(snapshot) == ""


@pytest.mark.parametrize("section", ["files", "shards"])
@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", ".", "", "a\\b", "a\0b"])
def test_manifest_that_names_a_file_elsewhere_is_refused(
    name: str, section: str, folder: Path, problems: Problems
) -> None:
    (folder.parent / "secret").write_text("not to be read")
    entries = getattr(read_manifest(folder / "tensorsurgeon.json"), section)
    entry = next(iter(entries.values()))
    change_manifest(folder, **{section: {**entries, name: entry}})
    assert "is no name of a file in this folder" in problems(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "BF17"},
        {"shape": [-1]},
        {"shape": [1.0]},
        {"shape": [True]},
        {"shape": [2**63] * 65},
        {"offset": -1},
        {"offset": 2**64},
        {"shard": "other.safetensors"},
        {"shard": "../other.safetensors"},
    ],
)
def test_manifest_that_makes_no_sense_is_a_problem(
    change: dict[str, Any], folder: Path, problems: Problems
) -> None:
    tensors = dict(read_manifest(folder / "tensorsurgeon.json").tensors)
    tensors["model.norm.weight"] = {**tensors["model.norm.weight"], **change}
    change_manifest(folder, tensors=tensors)
    found = problems(folder)
    assert "what it says of tensor 'model.norm.weight' makes no sense" in found
    assert "holds tensor 'model.norm.weight', which the manifest has not in it" in found


@pytest.mark.parametrize(
    "change", [{"shape": [1, 2]}, {"dtype": "F16"}, {"offset": 0}, {"offset": 2**40}]
)
def test_manifest_of_another_tensor_is_a_problem(
    change: dict[str, Any], folder: Path, problems: Problems
) -> None:
    tensors = dict(read_manifest(folder / "tensorsurgeon.json").tensors)
    tensors["model.norm.weight"] = {**tensors["model.norm.weight"], **change}
    change_manifest(folder, tensors=tensors)
    assert "model.safetensors: tensor 'model.norm.weight': BF16 [2] at byte" in problems(folder)


@pytest.mark.parametrize("nbytes", [-1, 0, 7, 9, 10**30])
def test_manifest_of_another_header_is_a_problem(
    nbytes: int, folder: Path, problems: Problems
) -> None:
    shards = dict(read_manifest(folder / "tensorsurgeon.json").shards)
    shards["model.safetensors"] = {**shards["model.safetensors"], "header_bytes": nbytes}
    change_manifest(folder, shards=shards)
    assert f"bytes; the manifest says {nbytes}" in problems(folder)


def test_manifest_of_another_version_is_named(folder: Path) -> None:
    path = folder / "tensorsurgeon.json"
    path.write_bytes(path.read_bytes().replace(b'"version": 1,', b'"version": 2,', 1))
    report = verify(folder, threads=1)
    (problem,) = report.problems
    assert problem.what == "is of version 2; this program reads 1"
    assert problem.fix
    assert not report.manifest
    assert report.unchecked


def test_deep_config_is_a_problem(folder: Path, problems: Problems) -> None:
    (folder / "config.json").write_bytes(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
    with_manifest(folder)
    assert "config.json: nested too deeply" in problems(folder)


def test_names_cannot_forge_a_line_or_color_it(tmp_path: Path) -> None:
    name = "model.\x1b[2J\n\u202etensor"
    folder = tiny_checkpoint(
        tmp_path / "out", tensors={**tiny_tensors(), name: tiny_tensors()["model.norm.weight"]}
    )
    assert verify(folder, threads=1).problems == ()
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[read_header(path)[name].offset] ^= 1
    path.write_bytes(data)
    (folder / "\x1b]0;title\x07\r").touch()
    os.close(os.open(os.fsencode(folder) + b"/\xff\xfe", os.O_CREAT))
    report = verify(folder, threads=1)
    assert len(report.problems) > 2
    texts = [report_text(report), explanation_text(explain(folder, name))]
    for line in "\n".join([*map(str, report.problems), *texts]).splitlines():
        assert line.isprintable()


@pytest.mark.timeout(10)
@pytest.mark.parametrize("length", [0, 1, 2**40, 2**63, 2**64 - 1])
def test_header_of_an_absurd_length_is_a_problem(
    length: int, folder: Path, problems: Problems
) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length))
    os.truncate(folder / "model.safetensors", 2**42)  # a hole: it takes no space
    (folder / "tensorsurgeon.json").unlink()
    assert "model.safetensors: header" in problems(folder)


def test_dtype_that_a_version_of_the_library_does_not_know_is_told_from_a_refusal() -> None:
    dtypes = {DType.F4, DType.F8_E8M0, DType.BF16}
    message = "invalid JSON in header: unknown variant `F4`, expected one of `BOOL`, `U8`"
    assert unknown_dtypes(dtypes, message) == ["F4"]
    assert unknown_dtypes(dtypes, "InvalidHeaderDeserialization") == ["F4", "F8_E8M0"]
    assert unknown_dtypes({DType.BF16}, "InvalidHeaderDeserialization") == []
    assert unknown_dtypes(dtypes, "unknown variant `XX`, expected one of `F4`") == []


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes any content as a manifest whose own digest is right."""
    content = {**content, "created": {"at": "", "binding": "", "run": "", "digest": "0" * 64}}
    text = json.dumps(content, ensure_ascii=False).encode()
    head = text[: -len('0"}}') - 63]
    tail = hashlib.sha256(head).hexdigest().encode() + b'"}\n}\n'
    (folder / "tensorsurgeon.json").write_bytes(head + tail)


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8)
    | st.sampled_from(["base", "model.safetensors", "BF16"])
)
names = st.text(st.characters(codec="utf-8"), max_size=5)
junk = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
SECTIONS = ["recipe", "sources", "layer_map", "files", "shards", "tensors"]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), section=st.sampled_from(SECTIONS), value=junk)
def test_any_manifest_with_a_right_digest_gives_problems_or_our_errors(
    data: st.DataObject, section: str, value: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    if not folder.exists():
        tiny_checkpoint(folder)
    with_manifest(folder)
    content = json.loads((folder / "tensorsurgeon.json").read_bytes())
    place = content
    key: Any = section
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from([*place] if isinstance(place, dict) else range(len(place))))
    place[key] = value
    write_manifest(folder, content)
    verify(folder, threads=1)
    for tensor in tiny_tensors():
        with suppress(TensorSurgeonError):
            explanation_text(explain(folder, tensor))
