"""A run that was recorded, and what must hold wherever the power is cut in it."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import get_args

from tensorsurgeon import api
from tensorsurgeon.execute import run_plan
from tensorsurgeon.plan import Plan
from tensorsurgeon.writing.disk import Disk
from tensorsurgeon.writing.journal import read_journal
from tests.cli.checkpoints import file_bytes, llama_config, llama_tensors, write_checkpoint
from tests.power.recording import (
    DataOp,
    FlushOp,
    Loss,
    NameOp,
    Names,
    Op,
    RecordingDisk,
    Tree,
    after_power_cut,
    apply_to,
)

Files = dict[str, bytes]

VOCAB = 800
"""An embedding of this has three pages and a bit, so that most of it is written past the cache."""

RECIPE = """\
models: {a: ./a, b: ./b, merged: {linear: {models: [a, b], weights: [0.3, 0.7]}}}
result: {block_expansion: {model: merged, every: 1}}
output: {max_shard_size: 13kB}
"""
"""Two layers, the second a new one: its last projections are zeros, which nobody writes."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A recorded run.

    Attributes:
        plan: what it made.
        root: where it ran; the output is `out` in it.
        overwrite: whether it was to replace what is there.
        before: what was there when it began.
        allowed: what the output may be, at every instant.
        new: what it must be in the end.
        ops: what the run did to the disk.
        folders: which inodes are folders.
    """

    plan: Plan
    root: Path
    overwrite: bool
    before: Tree
    allowed: tuple[Files | None, ...]
    new: Files
    ops: Sequence[Op]
    folders: set[int]


def make_plan(folder: Path) -> Plan:
    """A merge of two models in `folder`, which are made there."""
    for seed, name in enumerate("ab"):
        tensors = {
            tensor: values
            for tensor, values in llama_tensors(1, vocab=VOCAB, seed=seed).items()
            if any(word in tensor for word in ("norm", "embed", "down", "o_proj"))
        }
        write_checkpoint(folder / name, tensors, llama_config(1, vocab=VOCAB))
        (folder / name / "tokenizer.json").write_text("{}")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE)
    return api.plan(recipe, output=folder / "expected")


def record(
    plan: Plan,
    root: Path,
    new: Files,
    *,
    allowed: Sequence[Files | None] = (None,),
    disk: RecordingDisk | None = None,
    overwrite: bool = False,
) -> Case:
    """Run a plan in a folder, and note down what it does."""
    before = Tree.of(root)
    disk = disk or RecordingDisk(root)
    run_plan(plan, root / "out", threads=1, overwrite=overwrite, disk=disk)
    assert file_bytes(root / "out") == new
    return Case(
        plan=plan,
        root=root,
        overwrite=overwrite,
        before=before,
        allowed=(*allowed, new),
        new=new,
        ops=disk.ops,
        folders=disk.folders,
    )


class Unflushed(Disk):
    """For the runs after a power cut, of which nothing is asked but their bytes."""

    def flush(self, descriptor: int) -> None:
        pass

    def flush_folder(self, path: Path) -> None:
        pass


CUTS: tuple[tuple[Names, Loss], ...] = tuple(product(get_args(Names), get_args(Loss)))


def check_every_cut(case: Case, tmp_path: Path, start: int = 0) -> None:
    """Cut the power after each operation; see what is there; and run once more."""
    for count in range(start, len(case.ops) + 1):
        promised = tensors_promised(case, count, tmp_path / "journal")
        for state in states_after(case, count, tmp_path / "state"):
            check_promise(case, state, promised, finished=count == len(case.ops))


def states_after(case: Case, count: int, state: Path) -> Iterator[Path]:
    """Lay down all that a cut after so many operations may leave, one after the other."""
    seen: list[dict[str, bytes | None]] = []
    for names, loss in CUTS:
        after_power_cut(
            case.root,
            case.before,
            case.ops[:count],
            case.folders,
            names=names,
            loss=loss,
            target=state,
        )
        there = {
            str(path.relative_to(state)): path.read_bytes() if path.is_file() else None
            for path in state.rglob("*")
        }
        if there not in seen:
            seen.append(there)
            yield state
        shutil.rmtree(state)


def check_promise(case: Case, state: Path, promised: int, *, finished: bool) -> None:
    """Whole or absent; and the next run gives the same bytes, with no tensor made again."""
    out = state / "out"
    there = file_bytes(out) if out.exists() else None
    assert there in (case.new,) if finished else there in case.allowed
    if there == case.new and not (state / ".out.part").exists():
        return
    result = run_plan(case.plan, out, threads=1, overwrite=case.overwrite, disk=Unflushed())
    assert file_bytes(out) == case.new
    assert [entry.name for entry in state.iterdir()] == ["out"]
    assert result.tensors_resumed >= promised


def tensors_promised(case: Case, count: int, scratch: Path) -> int:
    """How many tensors the journal speaks of, as far as the run had it flushed or meant to."""
    done = case.ops[:count]
    flushes = [
        (at, op.inode)
        for at, op in enumerate(done)
        if isinstance(op, FlushOp) and op.path.name == "journal"
    ]
    is_placed = any(isinstance(op, FlushOp) and op.path == case.root for op in done)
    is_removed = any(
        name == "journal" for op in done if isinstance(op, NameOp) for _, name in op.gone
    )
    if not flushes or not is_placed or is_removed:
        return 0
    last, file = flushes[-1]
    content = bytearray()
    for op in done[:last]:
        if isinstance(op, DataOp) and op.file == file:
            apply_to(content, op, "kept")
    scratch.write_bytes(content)
    found = read_journal(scratch)
    return len(found.digests) if found and not found.complete else 0
