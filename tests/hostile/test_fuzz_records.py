"""Manifests and journals at random: problems and our errors, and never other bytes in a result.

A manifest's own digest, and the CRC of a journal's line, are right in half of them: a stranger can
compute both.
"""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorsurgeon import api
from tensorsurgeon.checkpoint import read_manifest
from tensorsurgeon.errors import ManifestError, TensorSurgeonError
from tensorsurgeon.execute import run_plan
from tensorsurgeon.explain import explain, explanation_json, explanation_text
from tensorsurgeon.plan import Plan
from tensorsurgeon.verify import report_json, report_text, verify
from tensorsurgeon.writing import journal
from tensorsurgeon.writing.journal import read_journal
from tests.cli.checkpoints import file_bytes
from tests.crash.jobs import tiny_recipe
from tests.hostile.strategies import as_json, changed, changes, values
from tests.hostile.test_fuzz import _memory_is_bounded, fuzz, refusal
from tests.power.replay import Contents, Files, Unflushed, lay_down
from tests.verify.checkpoints import SHAPES, tiny_checkpoint

__all__ = ["_memory_is_bounded"]

NAME = "tensorsurgeon.json"
TAIL = b'"}\n}\n'
LARGE = {
    b'"deep"': b"[" * 100_000 + b"]" * 100_000,
    b'"deeper than we read"': b"[" * 300 + b"]" * 300,
    b'"a digit too many"': b"9" * 1001,
    b'"a million digits"': b"9" * 1_000_000,
}
"""What no strategy makes: it is put in place of a text."""

large = st.sampled_from(sorted(LARGE)).map(json.loads)
odd_values = values | large | st.lists(large, max_size=2)


def as_odd_json(value: object, *, ascii_only: bool = True) -> bytes:
    """JSON of a value of `odd_values`."""
    text = as_json(value, ascii_only=ascii_only)
    for name, content in LARGE.items():
        text = text.replace(name, content)
    return text


line_changes = st.lists(
    st.tuples(st.sampled_from(["repeat", "drop", "swap"]), st.integers(0, 60), st.integers(0, 60)),
    max_size=4,
)


def rearranged(lines: list[bytes], steps: list[tuple[str, int, int]]) -> bytes:
    """Lines of which some were repeated elsewhere, left out or exchanged."""
    lines = list(lines)
    for step, one, other in steps:
        one, other = one % (len(lines) + 1), other % (len(lines) + 1)
        if step == "repeat":
            lines[other:other] = lines[one : one + 1]
        elif step == "drop":
            del lines[one : one + 1]
        elif max(one, other) < len(lines):
            lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def sealed(content: bytes) -> bytes:
    """A manifest whose own digest is right."""
    head = content[: -64 - len(TAIL)]
    return head + hashlib.sha256(head).hexdigest().encode() + TAIL


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound checkpoint; what a test writes to its manifest, it writes anew."""
    return tiny_checkpoint(tmp_path_factory.mktemp("records") / "out", shards=2)


@pytest.fixture(scope="module")
def valid_manifest(checkpoint: Path) -> bytes:
    return (checkpoint / NAME).read_bytes()


def check_manifest(folder: Path, content: bytes, valid: bytes) -> None:
    """It is read or refused as one of ours; verify and explain have problems and errors alone."""
    path = folder / NAME
    path.write_bytes(content)
    error = refusal(ManifestError, read_manifest, path)
    assert error is None or str(error).startswith(f"{path}: ")
    report = verify(folder, threads=1)
    assert report.manifest == (error is None)
    assert not error or report.problems
    assert report.problems or content == valid or json.loads(content) != json.loads(valid)
    texts = [report_text(report), *map(str, report.problems)]
    json.dumps(report_json(report)).encode()
    for tensor in SHAPES:
        if not refusal(TensorSurgeonError, explain, folder, tensor):
            found = explain(folder, tensor)
            json.dumps(explanation_json(found)).encode()
            texts.append(explanation_text(found))
    assert all(line.isprintable() for text in texts for line in text.splitlines())


@fuzz
@given(content=st.binary(max_size=100) | odd_values.map(as_odd_json))
def test_anything_as_a_manifest(content: bytes, checkpoint: Path, valid_manifest: bytes) -> None:
    check_manifest(checkpoint, content, valid_manifest)


@fuzz
@given(changes=changes, seals=st.booleans())
def test_changed_manifest(
    changes: list[tuple[int, int, bytes]], seals: bool, checkpoint: Path, valid_manifest: bytes
) -> None:
    content = changed(valid_manifest, changes)
    check_manifest(checkpoint, sealed(content) if seals else content, valid_manifest)


@fuzz
@given(steps=line_changes)
def test_manifest_of_rearranged_lines(
    steps: list[tuple[str, int, int]], checkpoint: Path, valid_manifest: bytes
) -> None:
    content = rearranged(valid_manifest.splitlines(keepends=True), steps)
    check_manifest(checkpoint, sealed(content), valid_manifest)


@fuzz
@given(data=st.data(), value=odd_values, ascii_only=st.booleans())
def test_manifest_of_other_values(
    data: st.DataObject, value: Any, ascii_only: bool, checkpoint: Path, valid_manifest: bytes
) -> None:
    text, pieces = valid_manifest, []
    found = json.loads(text)
    place, key = found, data.draw(st.sampled_from(list(found)[3:]))
    while isinstance(place[key], dict | list) and place[key] and data.draw(st.integers(0, 3)):
        place = place[key]
        pieces = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(pieces))
    place[key] = value
    created = found.pop("created", None)
    if isinstance(created, dict):
        found["created"] = {k: v for k, v in created.items() if k != "digest"} | {
            "digest": "0" * 64
        }
    content = as_odd_json(found, ascii_only=ascii_only)[:-3] + TAIL
    check_manifest(checkpoint, sealed(content), valid_manifest)


@dataclass(frozen=True, kw_only=True, repr=False)
class Interrupted:
    """A merge that was interrupted.

    Attributes:
        plan: what it makes.
        files: what it comes to.
        left: the disk as the interrupted run left it, its journal taken out.
        lines: the journal, a line each.
        made: how many tensors are made.
    """

    plan: Plan
    files: Files
    left: Contents
    lines: list[bytes]
    made: int


class InterruptedDisk(Unflushed):
    """Interrupts a run that has noted two tensors."""

    notes = 0

    def write(self, descriptor: int, data: memoryview, offset: int) -> None:
        self.notes += b'{"tensor": ' in bytes(data)
        if self.notes > 2:
            raise KeyboardInterrupt
        super().write(descriptor, data, offset)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interrupted]:
    folder = tmp_path_factory.mktemp("interrupted")
    plan = api.plan(tiny_recipe(folder), output=folder / "whole")
    files = file_bytes(api.apply(plan, threads=1).path)
    disk = folder / "disk"
    disk.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "BATCH_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            run_plan(plan, disk / "out", threads=1, disk=InterruptedDisk())
        path = disk / ".out.part" / "journal"
        record, lines = read_journal(path), path.read_bytes().splitlines(keepends=True)
        assert record is not None
        assert len(record.digests) == 2
        path.unlink()
        paths = sorted(disk.rglob("*"))
        yield Interrupted(
            plan=plan,
            files=files,
            left={str(p.relative_to(disk)): p.read_bytes() if p.is_file() else None for p in paths},
            lines=lines,
            made=len(record.digests),
        )


def journal_line(text: bytes) -> bytes:
    """A line whose CRC is right."""
    return b"%08x %s\n" % (zlib.crc32(text), text)


def check_journal(found: Interrupted, content: bytes, folder: Path) -> None:
    """The reader takes it as far as it is whole, and a run on it comes to the same bytes."""
    disk = folder / "disk"
    shutil.rmtree(disk, ignore_errors=True)
    lay_down({**found.left, ".out.part/journal": content}, disk)
    path = disk / ".out.part" / "journal"
    record = read_journal(path)
    if record is not None:
        path.write_bytes(content[: record.nbytes])
        assert read_journal(path) == record
        path.write_bytes(content)
    said: list[str] = []
    done = run_plan(found.plan, disk / "out", threads=1, notice=said.append, disk=Unflushed())
    assert file_bytes(disk / "out") == found.files
    assert done.tensors_resumed <= found.made
    if done.tensors_resumed:
        assert said == [
            f"going on: {done.tensors_resumed} of {len(found.plan.tensors)} tensors are made"
        ]
    assert [entry.name for entry in disk.iterdir()] == ["out"]


def test_whole_journal_is_gone_on_from(interrupted: Interrupted, tmp_path: Path) -> None:
    check_journal(interrupted, b"".join(interrupted.lines), tmp_path)


@fuzz
@given(content=st.binary(max_size=100) | odd_values.map(as_odd_json))
def test_anything_as_a_journal(content: bytes, interrupted: Interrupted, tmp_path: Path) -> None:
    check_journal(interrupted, content, tmp_path)


@fuzz
@given(changes=changes, cut=st.integers(0, 2000))
def test_changed_journal(
    changes: list[tuple[int, int, bytes]], cut: int, interrupted: Interrupted, tmp_path: Path
) -> None:
    check_journal(interrupted, changed(b"".join(interrupted.lines), changes)[:cut], tmp_path)


@fuzz
@given(steps=line_changes)
def test_journal_of_rearranged_lines(
    steps: list[tuple[str, int, int]], interrupted: Interrupted, tmp_path: Path
) -> None:
    check_journal(interrupted, rearranged(interrupted.lines, steps), tmp_path)


@fuzz
@given(entry=odd_values, at=st.integers(0, 5))
def test_journal_with_a_line_that_no_run_writes(
    entry: Any, at: int, interrupted: Interrupted, tmp_path: Path
) -> None:
    lines = list(interrupted.lines)
    lines.insert(at, journal_line(as_odd_json(entry)))
    check_journal(interrupted, b"".join(lines), tmp_path)


odd_texts = st.text(max_size=3) | st.sampled_from(["\ud800", "x\ny", "\0", "A" * 32, "0" * 63])


@fuzz
@given(
    data=st.data(),
    at=st.integers(0, 5),
    text=odd_texts | st.binary(max_size=31).map(bytes.hex) | odd_values,
    twice=st.booleans(),
)
def test_journal_with_another_value_in_a_line(
    data: st.DataObject, at: int, text: Any, twice: bool, interrupted: Interrupted, tmp_path: Path
) -> None:
    lines = list(interrupted.lines)
    at %= len(lines)
    entry = json.loads(lines[at][9:])
    key = data.draw(st.sampled_from(sorted(entry.keys() - {"tensor"})))
    other = as_odd_json({key: text})
    if not twice:
        del entry[key]
    old = as_json(entry)
    lines[at] = journal_line(old[:-1] + b", " * bool(entry) + other[1:])
    check_journal(interrupted, b"".join(lines), tmp_path)


def to_folder(path: Path) -> None:
    path.mkdir()
    (path / "x").touch()


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "make",
    [
        to_folder,
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("../../recipe.yaml"),
    ],
    ids=["a folder", "a pipe", "a device", "a loop", "a link elsewhere"],
)
def test_what_is_no_journal_is_not_read_and_no_harm(
    make: Callable[[Path], None], interrupted: Interrupted, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"".join(interrupted.lines))
    disk = tmp_path / "disk"
    lay_down(interrupted.left, disk)
    make(disk / ".out.part" / "journal")
    run_plan(interrupted.plan, disk / "out", threads=1, disk=Unflushed())
    assert file_bytes(disk / "out") == interrupted.files
    assert [entry.name for entry in disk.iterdir()] == ["out"]
    assert (tmp_path / "recipe.yaml").read_bytes() == b"".join(interrupted.lines)
