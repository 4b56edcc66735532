"""The power may go between any two operations: the promise holds on whatever is left then."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from tensorsurgeon import api
from tensorsurgeon.execute import journal, run_plan
from tensorsurgeon.execute.disk import Disk
from tensorsurgeon.execute.journal import read_journal
from tensorsurgeon.plan import Plan
from tests.cli.checkpoints import file_bytes, tiny_llama
from tests.power.recording import (
    DataOp,
    FlushOp,
    Op,
    RecordingDisk,
    Tree,
    after_power_cut,
    inode,
)

RECIPE = """\
models: {a: ./a, b: ./b}
result: {stack: [{model: {linear: {models: [a, b]}}, layers: [0, 1]}, {model: a, layers: [1, 2]}]}
output: {max_shard_size: 2kB}
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A run that was recorded: onto nothing, or over an old checkpoint."""

    plan: Plan
    root: Path
    overwrite: bool
    before: Tree
    old: dict[str, bytes] | None
    new: dict[str, bytes]
    ops: Sequence[Op]
    folders: set[int]


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Case]:
    monkeypatch.setattr(journal, "BATCH_SECONDS", 0.0)
    for seed, name in enumerate("ab"):
        tiny_llama(tmp_path / name, seed=seed)
        (tmp_path / name / "tokenizer.json").write_text("{}")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    plan = api.plan(tmp_path / "recipe.yaml", output=tmp_path / "expected")
    new = file_bytes(api.apply(plan, threads=1).path)

    def record(
        *,
        overwrite: bool = False,
        exchanges: bool = True,
        leaves_out: Callable[[str], bool] = lambda path: False,
    ) -> Case:
        root = tmp_path / "disk"
        root.mkdir()
        old = file_bytes(tiny_llama(root / "out", 3, seed=9)) if overwrite else None
        before = Tree.of(root)
        disk = RecordingDisk(root, exchanges, leaves_out)
        run_plan(plan, root / "out", threads=1, overwrite=overwrite, disk=disk)
        return Case(
            plan=plan,
            root=root,
            overwrite=overwrite,
            before=before,
            old=old,
            new=new,
            ops=disk.ops,
            folders=disk.folders,
        )

    return record


class Unflushed(Disk):
    """For the runs after a power cut, of which nothing is asked but their bytes."""

    def flush(self, descriptor: int) -> None:
        pass

    def flush_folder(self, path: Path) -> None:
        pass


CUTS = tuple(product((False, True), ("dropped", "kept", "zeroed", "torn")))


def check_every_cut(case: Case, tmp_path: Path) -> None:
    """Cut the power after each operation; see what is there; and run once more."""
    for count in range(len(case.ops) + 1):
        promised = tensors_promised(case, count, tmp_path)
        for names_kept, loss in CUTS:
            state = tmp_path / "state"
            after_power_cut(
                case.root,
                case.before,
                case.ops[:count],
                case.folders,
                names_kept=names_kept,
                loss=loss,
                target=state,
            )
            check_promise(case, state, promised, finished=count == len(case.ops))
            shutil.rmtree(state)


def check_promise(case: Case, state: Path, promised: int, *, finished: bool) -> None:
    out = state / "out"
    there = file_bytes(out) if out.exists() else None
    assert there in (case.new,) if finished else there in (None, case.old, case.new)
    if there == case.new and not (state / ".out.part").exists():
        return
    result = run_plan(case.plan, out, threads=1, overwrite=case.overwrite, disk=Unflushed())
    assert file_bytes(out) == case.new
    assert [entry.name for entry in state.iterdir()] == ["out"]
    assert result.tensors_resumed >= promised


def tensors_promised(case: Case, count: int, tmp_path: Path) -> int:
    """How many tensors the journal speaks of, as far as the run had it flushed or meant to."""
    path = tmp_path / "journal"
    flushes = [
        (at, op.inode)
        for at, op in enumerate(case.ops[:count])
        if isinstance(op, FlushOp) and op.path.name == "journal"
    ]
    if not flushes or not any(
        isinstance(op, FlushOp) and op.path == case.root for op in case.ops[:count]
    ):
        return 0
    last, file = flushes[-1]
    content = bytearray()
    for op in case.ops[:last]:
        if isinstance(op, DataOp) and op.file == file and op.data is not None:
            content.extend(op.data)
    path.write_bytes(content)
    found = read_journal(path)
    return len(found.digests) if found and not found.complete else 0


@pytest.mark.parametrize(("overwrite", "exchanges"), [(False, True), (True, True), (True, False)])
def test_promise_holds_wherever_the_power_is_cut(
    overwrite: bool, exchanges: bool, record: Callable[..., Case], tmp_path: Path
) -> None:
    check_every_cut(record(overwrite=overwrite, exchanges=exchanges), tmp_path)


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
def test_no_flush_can_be_left_out(
    leaves_out: Callable[[str], bool], record: Callable[..., Case], tmp_path: Path
) -> None:
    case = record(leaves_out=leaves_out)
    assert any(isinstance(op, FlushOp) and not op.done for op in case.ops)
    with pytest.raises(AssertionError):
        check_every_cut(case, tmp_path)


def test_recorded_disk_is_the_real_one_where_nothing_is_lost(
    record: Callable[..., Case], tmp_path: Path
) -> None:
    case = record(overwrite=True)
    after_power_cut(
        case.root,
        case.before,
        case.ops,
        case.folders,
        names_kept=False,
        loss="dropped",
        target=tmp_path / "state",
    )
    assert file_bytes(tmp_path / "state" / "out") == case.new
    assert inode(case.root) in case.folders
