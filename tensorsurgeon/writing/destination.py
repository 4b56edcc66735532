"""Whether a result can go where it shall, and what it means when writing there fails."""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tensorsurgeon.errors import OutputError, PlanError
from tensorsurgeon.specs import size_text
from tensorsurgeon.writing.disk import Disk
from tensorsurgeon.writing.workplace import Workplace

_MORE_ROOM = "free space there, or choose another disk with -o"


def check_destination(
    path: Path,
    sources: Iterable[Path],
    nbytes: int,
    *,
    overwrite: bool,
    more_room: str = _MORE_ROOM,
) -> None:
    """Refuse a place where the result cannot or must not go, before anything is written.

    Args:
        path: the folder to make.
        sources: folders that are read.
        nbytes: size of the result.
        overwrite: whether a checkpoint that is there may be replaced.
        more_room: what to do where the disk is too small.

    Raises:
        PlanError: it is there already, lies in a source or around one, is no place to write, or
            its disk is too small.
    """
    check_workplace(path, sources, nbytes, more_room=more_room)
    if path.exists() or path.is_symlink():
        check_replaceable(path, overwrite=overwrite)


def check_workplace(
    path: Path,
    sources: Iterable[Path],
    nbytes: int,
    *,
    more_room: str = _MORE_ROOM,
) -> None:
    """Refuse a place beside which the work cannot or must not be done.

    Args:
        path: the folder to make, or what it would be called.
        sources: folders that are read.
        nbytes: the most that is on the disk at a time.
        more_room: what to do where the disk is too small.

    Raises:
        PlanError: it lies in a source or around one, is no place to write, or its disk is too
            small.
    """
    place = path.resolve()
    for source in sources:
        real = source.resolve()
        if place == real or place.is_relative_to(real) or real.is_relative_to(place):
            raise PlanError(
                f"lies in, around or at the source {source}",
                where=str(path),
                fix="choose an output folder of its own",
            )
    if Path.cwd().is_relative_to(place):
        raise PlanError(
            "is the folder this runs in, or around it",
            where=str(path),
            fix="choose an output folder of its own",
        )
    parent = _existing_parent(place)
    if not parent.is_dir():
        raise PlanError(f"cannot be made: {parent} is not a folder", where=str(path))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PlanError(f"cannot be made: {parent} is not writable", where=str(path))
    disk = shutil.disk_usage(parent)
    lacking = nbytes - _taken_already(Workplace.of(place))
    if disk.total and lacking > disk.free:  # some file systems do not tell
        raise PlanError(
            f"needs {size_text(lacking)}, but the disk of {parent} has {size_text(disk.free)} free",
            where=str(path),
            fix=more_room,
        )


def check_replaceable(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace what is no checkpoint, or anything where that was not asked for.

    Raises:
        PlanError: says what is there.
    """
    if not overwrite:
        raise PlanError("is already there", where=str(path), fix="--overwrite replaces it")
    if path.is_symlink() or not path.is_dir():
        raise PlanError("is not a folder, and so not replaced", where=str(path))
    inside = list(path.iterdir())
    if inside and not (path / "config.json").is_file():
        reason = "it has files, but no config.json, and so is no checkpoint"
    elif inside and not any(entry.suffix == ".safetensors" for entry in inside):
        reason = "it has no safetensors files, and so is no checkpoint"
    elif any(entry.is_dir() for entry in inside):
        reason = "it has folders inside, which no checkpoint written here has"
    else:
        return
    raise PlanError(
        f"is not replaced: {reason}", where=str(path), fix="choose another output folder"
    )


def _taken_already(place: Workplace) -> int:
    """Bytes on the disk that an interrupted run has written, and that will be used."""
    try:
        return sum(entry.stat().st_blocks * 512 for entry in place.checkpoint.iterdir())
    except OSError:
        return 0


def _existing_parent(place: Path) -> Path:
    parent = place.parent
    while not parent.exists():
        parent = parent.parent
    return parent


_FIXES = {
    errno.ENOSPC: "free space on that disk, or choose another with -o",
    errno.EDQUOT: "your quota on that disk is used up; choose another with -o",
    errno.EFBIG: "a file size limit is in force; a smaller output: max_shard_size may fit",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or output: max_shard_size",
    errno.EACCES: "choose a folder that you may write to with -o",
    errno.EROFS: "that disk is mounted read-only; choose another with -o",
}


def output_error(error: OSError, final: Path) -> OutputError:
    """What a failed operation on the output's disk means to a user."""
    return OutputError(
        f"writing failed: {error.strerror or error}",
        where=str(final),
        fix=_FIXES.get(error.errno or 0, ""),
    )


@contextmanager
def output_explained(final: Path) -> Iterator[None]:
    """What the system says of the output's disk, as an error of ours, with what was noted on it."""
    try:
        yield
    except OSError as error:
        told = output_error(error, final)
        for note in getattr(error, "__notes__", ()):
            told.add_note(note)
        raise told from error


@contextmanager
def parents_made(parent: Path, disk: Disk) -> Iterator[None]:
    """Make the folders above an output; on failure remove those that are empty again."""
    missing = []
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    try:
        for folder in reversed(missing):
            with suppress(FileExistsError):
                disk.make_folder(folder)
            disk.flush_folder(folder.parent)
        yield
    except BaseException:
        for folder in missing:
            with suppress(OSError):  # somebody else may use it by now, or it keeps what was done
                disk.remove_folder(folder)
        raise
