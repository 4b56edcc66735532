"""The power may go between any two operations: the promise holds on whatever is left then."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tensorsurgeon import api
from tensorsurgeon.errors import TensorSurgeonError
from tensorsurgeon.plan import Plan
from tensorsurgeon.writing import journal
from tests.cli.checkpoints import file_bytes, tiny_llama
from tests.power.cutting import (
    Files,
    check_every_cut,
    make_plan,
    record,
)
from tests.power.recording import DataOp, FlushOp, RecordingDisk, after_power_cut, inode


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A merge of which every tensor is flushed and journalled before the next."""
    monkeypatch.setattr(journal, "BATCH_SECONDS", 0.0)
    return make_plan(tmp_path)


@pytest.fixture
def new(plan: Plan) -> Files:
    """What it makes."""
    return file_bytes(api.apply(plan, threads=1).path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the recorded runs are."""
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.mark.parametrize(("overwrite", "exchanges"), [(False, True), (True, True), (True, False)])
def test_promise_holds_wherever_the_power_is_cut(
    overwrite: bool, exchanges: bool, plan: Plan, new: Files, root: Path, tmp_path: Path
) -> None:
    old = file_bytes(tiny_llama(root / "out", 3, seed=9)) if overwrite else None
    disk = RecordingDisk(root, exchanges)
    allowed = [old] if exchanges else [old, None]
    case = record(plan, root, new, allowed=allowed, overwrite=overwrite, disk=disk)
    assert any(isinstance(op, DataOp) and len(op.data or b"") >= 3 * 4096 for op in case.ops)
    check_every_cut(case, tmp_path)


FLUSHES = {
    "the shards'": lambda path: path.endswith(".safetensors"),
    "the journal's": lambda path: path.endswith("journal"),
    "the config's": lambda path: path.endswith("checkpoint/config.json"),
    "the tokenizer's": lambda path: path.endswith("tokenizer.json"),
    "the index's": lambda path: path.endswith("index.json"),
    "the manifest's": lambda path: path.endswith("tensorsurgeon.json"),
    "the checkpoint folder's": lambda path: path.endswith("checkpoint"),
    "the work folder's": lambda path: path.endswith(".part"),
    "the parent folder's": lambda path: path == ".",
}


@pytest.mark.parametrize("leaves_out", FLUSHES.values(), ids=FLUSHES)
def test_no_kind_of_flush_can_be_left_out(
    leaves_out: Callable[[str], bool], plan: Plan, new: Files, root: Path, tmp_path: Path
) -> None:
    case = record(plan, root, new, disk=RecordingDisk(root, leaves_out=leaves_out))
    assert any(isinstance(op, FlushOp) and not op.done for op in case.ops)
    with pytest.raises(AssertionError):
        check_every_cut(case, tmp_path)


def test_no_single_flush_can_be_left_out(
    plan: Plan, new: Files, root: Path, tmp_path: Path
) -> None:
    case = record(plan, root, new)
    flushes = [(at, op) for at, op in enumerate(case.ops) if isinstance(op, FlushOp)]
    assert len(flushes) > 20
    unnoticed = []
    for at, op in flushes:
        ops = list(case.ops)
        ops[at] = replace(op, done=False)
        try:
            check_every_cut(replace(case, ops=ops), tmp_path, start=at)
        except (AssertionError, TensorSurgeonError):
            shutil.rmtree(tmp_path / "state")
        else:
            unnoticed.append(f"{at}: {op.path.relative_to(root)}")
    assert not unnoticed


def test_recorded_disk_is_the_real_one_where_nothing_is_lost(
    plan: Plan, new: Files, root: Path, tmp_path: Path
) -> None:
    tiny_llama(root / "out", 3, seed=9)
    case = record(plan, root, new, overwrite=True)
    after_power_cut(
        case.root,
        case.before,
        case.ops,
        case.folders,
        names="lost",
        loss="dropped",
        target=tmp_path / "state",
    )
    assert file_bytes(tmp_path / "state" / "out") == new
    assert inode(case.root) in case.folders
