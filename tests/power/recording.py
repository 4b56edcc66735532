"""A disk that notes down what is done to it, and what a power cut leaves of that.

A file's bytes are sure once the file was flushed, a name once the folder it is in was; a rename is
one step. What is not sure may be lost, or be there, or be there in part.
"""

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tensorsurgeon.writing.disk import Disk

Names = Literal["lost", "kept", "some"]
"""What becomes of names that were given or taken and not flushed; some: each by chance."""

Loss = Literal["dropped", "kept", "zeroed", "torn"]
"""What becomes of bytes that were written and not flushed: torn is the first half of a write."""


@dataclass(frozen=True, kw_only=True)
class NameOp:
    """Names taken from folders and put into folders, in one step; by inode numbers."""

    gone: tuple[tuple[int, str], ...] = ()
    there: tuple[tuple[int, str, int], ...] = ()

    @property
    def folders(self) -> set[int]:
        return {folder for folder, _ in self.gone} | {folder for folder, *_ in self.there}


@dataclass(frozen=True, kw_only=True)
class DataOp:
    """A file given a size, or bytes at an offset."""

    file: int
    offset: int
    data: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class FlushOp:
    """A file or a folder flushed; `done` is False where that is left out on trial."""

    inode: int
    path: Path
    done: bool


Op = NameOp | DataOp | FlushOp


def inode(file: Path | int) -> int:
    return os.stat(file).st_ino


@dataclass
class RecordingDisk(Disk):
    """A disk below `root`; `leaves_out` says of which paths a flush is forgotten."""

    root: Path
    exchanges: bool = True
    leaves_out: Callable[[str], bool] = lambda path: False
    ops: list[Op] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folders = {inode(path) for path in (self.root, *self.root.rglob("*")) if path.is_dir()}

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        self.folders.add(inode(path))
        self.ops.append(NameOp(there=((inode(path.parent), path.name, inode(path)),)))

    def create(self, path: Path) -> int:
        descriptor = super().create(path)
        number = inode(descriptor)
        self.ops.append(NameOp(there=((inode(path.parent), path.name, number),)))
        self.ops.append(DataOp(file=number, offset=0))
        return descriptor

    def resize(self, descriptor: int, nbytes: int) -> None:
        super().resize(descriptor, nbytes)
        self.ops.append(DataOp(file=inode(descriptor), offset=nbytes))

    def write(self, descriptor: int, data: memoryview, offset: int) -> None:
        super().write(descriptor, data, offset)
        self.ops.append(DataOp(file=inode(descriptor), offset=offset, data=bytes(data)))

    def flush(self, descriptor: int) -> None:
        super().flush(descriptor)
        self._flushed(descriptor, Path(os.readlink(f"/proc/self/fd/{descriptor}")))

    def flush_folder(self, path: Path) -> None:
        super().flush_folder(path)
        self._flushed(path, path)

    def _flushed(self, file: Path | int, path: Path) -> None:
        done = not self.leaves_out(str(path.relative_to(self.root)))
        self.ops.append(FlushOp(inode=inode(file), path=path, done=done))

    def rename(self, path: Path, target: Path) -> None:
        number = inode(path)
        super().rename(path, target)
        gone = ((inode(path.parent), path.name),)
        self.ops.append(NameOp(gone=gone, there=((inode(target.parent), target.name, number),)))

    def exchange(self, one: Path, other: Path) -> bool:
        if not self.exchanges:
            return False
        here, there = inode(one), inode(other)
        assert super().exchange(one, other)
        names = (inode(one.parent), one.name, there), (inode(other.parent), other.name, here)
        self.ops.append(NameOp(there=names))
        return True

    def remove(self, path: Path) -> None:
        parent = inode(path.parent)
        super().remove(path)
        self.ops.append(NameOp(gone=((parent, path.name),)))


def after_power_cut(
    root: Path,
    before: "Tree",
    ops: Sequence[Op],
    folders: set[int],
    *,
    names: Names,
    loss: Loss,
    target: Path,
) -> None:
    """Lay down in `target` what is left below `root` when the power goes after `ops`."""
    chance = random.Random(len(ops))
    entries = {folder: dict(names) for folder, names in before.entries.items()}
    for at, op in enumerate(ops):
        if not isinstance(op, NameOp):
            continue
        is_kept = names == "kept" or (names == "some" and chance.random() < 0.5)
        if is_kept or _is_sure(ops, at, op.folders):
            for folder, name in op.gone:
                entries.setdefault(folder, {}).pop(name, None)
            for folder, name, number in op.there:
                entries.setdefault(folder, {})[name] = number
    files = {number: bytearray(data) for number, data in before.files.items()}
    for at, op in enumerate(ops):
        if isinstance(op, DataOp):
            sure = _is_sure(ops, at, {op.file})
            apply_to(files.setdefault(op.file, bytearray()), op, "kept" if sure else loss)

    def lay(folder: int, path: Path) -> None:
        path.mkdir(exist_ok=True)
        for name, number in entries.get(folder, {}).items():
            if number in folders:
                lay(number, path / name)
            else:
                (path / name).write_bytes(files.get(number, b""))

    lay(inode(root), target)


def _is_sure(ops: Sequence[Op], at: int, inodes: set[int]) -> bool:
    return any(isinstance(op, FlushOp) and op.done and op.inode in inodes for op in ops[at + 1 :])


def apply_to(content: bytearray, op: DataOp, loss: Loss) -> None:
    if loss == "dropped":
        return
    if op.data is None:
        size = op.offset
        del content[size:]
        content.extend(bytes(size - len(content)))
        return
    data = op.data if loss == "kept" else bytes(len(op.data))
    if loss == "torn":
        data = op.data[: len(op.data) // 2]
    content.extend(bytes(max(0, op.offset + len(data) - len(content))))
    content[op.offset : op.offset + len(data)] = data


@dataclass(frozen=True)
class Tree:
    """What was on the disk, and sure, before the run."""

    entries: dict[int, dict[str, int]]
    files: dict[int, bytes]

    @classmethod
    def of(cls, root: Path) -> "Tree":
        folders = [path for path in (root, *root.rglob("*")) if path.is_dir()]
        return cls(
            entries={inode(f): {path.name: inode(path) for path in f.iterdir()} for f in folders},
            files={inode(p): p.read_bytes() for p in root.rglob("*") if p.is_file()},
        )
