"""What a training has left in its folder: which checkpoints are whole, and of which training.

A training's checkpoint is a folder `step-00000100` that holds the files of each rank, and
`meta.json`: the step, every other file's size in bytes, and what the training was. It gets that
name only when all of it is on the disk. Under way it is called `step-00000100.<run>.part`, and
while it is removed `step-00000100.<run>.gone`; nothing of these names is ever gone on from.
"""

import errno
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, ValidationError

from tensorsurgeon.errors import (
    BusyError,
    OutputError,
    Problem,
    ResumeError,
    TensorSurgeonError,
    shortened,
)
from tensorsurgeon.writing import Disk, Workplace, holder_of, json_bytes, locked

META_NAME = "meta.json"

_WHOLE = re.compile(r"step-(\d{8,})")
_UNDER_WAY = re.compile(r"step-\d{8,}\..+\.(part|gone)")

_ABSENT = object()

_T = TypeVar("_T")


class _Meta(BaseModel):
    """`meta.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    step: int
    files: dict[str, int]
    meta: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A complete checkpoint of a training.

    Attributes:
        step: how many steps had been taken.
        path: its folder.
        nbytes: of its files.
        meta: what the training was, as it was told when this was saved.
    """

    step: int
    path: Path
    nbytes: int
    meta: Mapping[str, Any]


def name_of(step: int) -> str:
    """What a step's checkpoint is called."""
    return f"step-{step:08d}"


def encode_meta(step: int, files: Mapping[str, int], meta: Mapping[str, Any]) -> bytes:
    """`meta.json` of a checkpoint.

    Args:
        step: how many steps had been taken.
        files: size of each other file in bytes.
        meta: of JSON's own types.
    """
    return json_bytes({"step": step, "files": dict(sorted(files.items())), "meta": meta})


def find_latest(folder: Path, notice: Callable[[str], None]) -> Saved | None:
    """The newest complete checkpoint of a training; None where it has saved none.

    Args:
        folder: of its checkpoints; need not be there.
        notice: told of each newer one that is damaged.

    Raises:
        ResumeError: every one is damaged, or one cannot be read at this time.
    """
    try:
        whole, damaged = examine(folder)
    except OSError as error:
        raise ResumeError(f"cannot be read: {error.strerror}", where=str(error.filename)) from None
    if damaged and not whole:
        *others, last = damaged.values()
        fix = "remove them to begin anew, or give the run another folder"
        raise ResumeError.of([*others, replace(last, fix=fix)])
    for step, problem in damaged.items():
        if step > whole[0].step:
            notice(f"{problem}; going on from {whole[0].path.name}")
    return whole[0] if whole else None


def examine(folder: Path) -> tuple[list[Saved], dict[int, Problem]]:
    """The complete checkpoints, newest first, and by step what is wrong with the others.

    Raises:
        OSError: one cannot be read at this time.
    """
    whole: list[Saved] = []
    damaged: dict[int, Problem] = {}
    for step, path in sorted(_steps_in(folder), reverse=True):
        found = _open(step, path)
        if isinstance(found, Saved):
            whole.append(found)
        else:
            damaged[step] = Problem(where=str(path), what=f"is damaged: {found}")
    return whole, damaged


def _steps_in(folder: Path) -> Iterator[tuple[int, Path]]:
    """What is there under the name of a complete checkpoint, and its step."""
    if folder.is_dir():
        for path in folder.iterdir():
            found = _WHOLE.fullmatch(path.name)
            if found and path.name == name_of(int(found[1])):
                yield int(found[1]), path


def _open(step: int, path: Path) -> Saved | str:
    """A checkpoint, or what is wrong with it."""
    try:
        meta = _Meta.model_validate_json((path / META_NAME).read_bytes())
    except ValidationError as error:
        return f"{META_NAME} is not what it should be ({error.errors()[0]['msg']})"
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
        return f"{META_NAME} is missing"
    if meta.step != step:
        return f"{META_NAME} is of step {meta.step}"
    for name, nbytes in meta.files.items():
        try:
            there = (path / name).stat().st_size
        except FileNotFoundError:
            return f"{name} is missing"
        if there != nbytes:
            return f"{name} has {there} bytes, not {nbytes}"
    return Saved(step=step, path=path, nbytes=sum(meta.files.values()), meta=meta.meta)


def make_folder(folder: Path, disk: Disk) -> None:
    """Make a folder and those around it, where they are not there, to stay."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        with suppress(FileExistsError):
            disk.make_folder(path)
        disk.flush_folder(path.parent)


def remove_leftovers(folder: Path, disk: Disk) -> None:
    """Remove what interrupted saves have left; whoever has the run's folder alone may do so."""
    for path in list(folder.iterdir()):
        if _UNDER_WAY.fullmatch(path.name):
            disk.remove_tree(path)


def remove_old(folder: Path, keep: int, run: str, disk: Disk) -> None:
    """Remove what is older than the complete checkpoints that are kept, damaged ones as well."""
    whole, _ = examine(folder)
    oldest = whole[:keep][-1].step
    for step, path in list(_steps_in(folder)):
        if step < oldest:
            discard(path, run, disk)


def discard(path: Path, run: str, disk: Disk) -> None:
    """Remove a checkpoint, which from the first step on has another name.

    Args:
        path: its folder.
        run: hexadecimal digits of this run alone.
        disk: that it is on.
    """
    gone = path.with_name(f"{path.name}.{run}.gone")
    disk.rename(path, gone)
    disk.flush_folder(path.parent)
    disk.remove_tree(gone)


def first_rank(work: Callable[[], _T]) -> _T:
    """What some work of the first rank gives, or its error, on all ranks."""
    told: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            told[0] = work()
        except (TensorSurgeonError, OSError) as error:
            told[1] = error
    dist.broadcast_object_list(told)
    result, failed = told
    if failed:
        raise failed
    return cast("_T", result)


@contextmanager
def held(folder: Path, disk: Disk | None = None) -> Iterator[None]:
    """Have the folder of a run, which is made if need be, for this training alone.

    The system gives it back when the first rank ends, however it ends, and the processes it forked.

    Raises:
        BusyError: another training has it, on all ranks; names that one.
        OutputError: the folder cannot be made, or its file system has no locks.
    """
    with ExitStack() as stack:
        first_rank(lambda: _hold(folder, disk or Disk(), stack))
        yield


def _hold(folder: Path, disk: Disk, stack: ExitStack) -> None:
    place = Workplace(final=folder, root=folder)
    other = "name another folder: in the run file"
    try:
        make_folder(folder, disk)
        stack.enter_context(locked(place, disk))
    except BusyError:
        holder = holder_of(place) or "a process that has ended since"
        raise BusyError(
            f"another training is at work here: {holder}",
            where=str(folder),
            fix=f"wait for it, stop it, or {other}",
        ) from None
    except OutputError as error:
        problem = error.problems[0]
        raise OutputError(problem.what, where=problem.where, fix=other) from None
    except OSError as error:
        what = f"cannot be made: {error.strerror}"
        raise OutputError(what, where=str(folder), fix=other) from None


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], *, free: Collection[str] = ()
) -> list[Problem]:
    """What keeps a training from going on with another: every value that is not the same.

    Args:
        old: of the training that saved, nested, of JSON's own types.
        new: of the one that shall go on.
        free: paths, as `checkpoint.keep`, at and below which it may differ.

    Returns:
        A problem for each, of its path and both values, for a ResumeError; none where it may.
    """
    paths = list(_differing("", json.loads(json.dumps(old)), json.loads(json.dumps(new))))
    problems = [
        Problem(
            where=path, what=f"was {_text(before)} when this run began, and is now {_text(now)}"
        )
        for path, before, now in paths
        if not any(f"{path}.".startswith(f"{allowed}.") for allowed in free)
    ]
    if problems:
        fix = "put it back as it was, or give the new run another folder"
        problems[-1] = replace(problems[-1], fix=fix)
    return problems


def _differing(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            inside = f"{path}.{key}" if path else key
            yield from _differing(inside, old.get(key, _ABSENT), new.get(key, _ABSENT))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, now) in enumerate(zip(old, new, strict=True)):
            yield from _differing(f"{path}.{index}", before, now)
    elif old != new:
        yield path, old, new


def _text(value: Any) -> str:
    return "absent" if value is _ABSENT else shortened(json.dumps(value, ensure_ascii=False))
