"""The output folder: laid down beside its place, flushed, and renamed into it.

Order: a work folder on the same file system; shard files at their full size with their headers;
tensors at their offsets; config, index and other files; every file flushed, then the folder; the
rename; the parent flushed. Until the rename the output path is untouched, and whatever fails
before it takes the work folder away again.
"""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tensorsurgeon.checkpoint import INDEX_NAME
from tensorsurgeon.errors import CheckpointError, OutputError, PlanError
from tensorsurgeon.plan import Plan, Shard
from tensorsurgeon.specs import PAGE, size_text


def check_destination(path: Path, sources: Iterable[Path], nbytes: int, *, overwrite: bool) -> None:
    """Refuse a place where the result cannot or must not go, before anything is written.

    Args:
        path: the folder to make.
        sources: folders that are read.
        nbytes: size of the result.
        overwrite: whether a checkpoint that is there may be replaced.

    Raises:
        PlanError: it is there already, lies in a source or around one, is no place to write, or
            its disk is too small.
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
    if path.exists() or path.is_symlink():
        _check_replaceable(path, overwrite=overwrite)
    parent = _existing_parent(place)
    if not parent.is_dir():
        raise PlanError(f"cannot be made: {parent} is not a folder", where=str(path))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PlanError(f"cannot be made: {parent} is not writable", where=str(path))
    disk = shutil.disk_usage(parent)
    if disk.total and nbytes > disk.free:  # some file systems do not tell
        raise PlanError(
            f"needs {size_text(nbytes)}, but the disk of {parent} has {size_text(disk.free)} free",
            where=str(path),
            fix="free space there, or choose another disk with -o",
        )


def _check_replaceable(path: Path, *, overwrite: bool) -> None:
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


def _existing_parent(place: Path) -> Path:
    parent = place.parent
    while not parent.exists():
        parent = parent.parent
    return parent


class OutputFolder:
    """The work folder of one run; `finish` turns it into the result."""

    def __init__(self, final: Path, work: Path) -> None:
        self.final = final
        self.work = work
        self._shards: dict[str, int] = {}
        self._direct: dict[str, int] = {}

    def lay_down(self, shards: Iterable[Shard]) -> None:
        """Make every shard file at its full size, its header written."""
        for shard in shards:
            path = self.work / shard.name
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            self._shards[shard.name] = descriptor
            os.ftruncate(descriptor, shard.nbytes)
            self._write_all(descriptor, 0, memoryview(shard.header))
            # Not every system and file system can write past the cache.
            with suppress(AttributeError, OSError):
                flags = os.O_WRONLY | os.O_CLOEXEC | os.O_DIRECT
                self._direct[shard.name] = os.open(path, flags)

    @property
    def is_direct(self) -> bool:
        """Whether whole pages are written past the page cache."""
        return bool(self._direct)

    def descriptor(self, shard: str) -> int:
        """The open file descriptor of a shard."""
        return self._shards[shard]

    def write(self, shard: str, offset: int, data: memoryview) -> None:
        """Write bytes at an offset of a shard, all of them.

        Args:
            shard: name of the file.
            offset: where in it, in bytes.
            data: the bytes; for direct writes they lie at `offset` modulo PAGE in memory.
        """
        direct = self._direct.get(shard)
        head = min(-offset % PAGE, len(data))
        pages = (len(data) - head) // PAGE * PAGE
        if direct is None or not pages:
            self._write_cached(shard, offset, data)
            return
        self._write_cached(shard, offset, data[:head])
        try:
            self._write_all(direct, offset + head, data[head : head + pages])
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # The file system opens for direct writes, but cannot do this one.
            self._write_cached(shard, offset + head, data[head : head + pages])
        self._write_cached(shard, offset + head + pages, data[head + pages :])

    def _write_cached(self, shard: str, offset: int, data: memoryview) -> None:
        if data:
            self._write_all(self._shards[shard], offset, data)
            if len(data) >= PAGE:
                self.start_write_back(shard, offset, len(data))

    def _write_all(self, descriptor: int, offset: int, data: memoryview) -> None:
        done = 0
        while done < len(data):
            done += os.pwrite(descriptor, data[done:], offset + done)

    def start_write_back(self, shard: str, offset: int, length: int) -> None:
        """Have the kernel write these bytes to disk now rather than all at the last flush.

        On dirty pages this advice starts the writing and drops nothing.
        """
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._shards[shard], offset, length, os.POSIX_FADV_DONTNEED)

    def write_config(self, plan: Plan) -> None:
        """The index where there are several shards, the config, and the files that go along."""
        for sidecar in plan.sidecars:
            try:
                data = sidecar.path.read_bytes()
            except OSError as error:
                what = f"cannot be read: {error.strerror}"
                raise CheckpointError(what, where=str(sidecar.path)) from None
            (self.work / sidecar.name).write_bytes(data)
        if len(plan.shards) > 1:
            weight_map = {spec.name: shard.name for shard in plan.shards for spec in shard.specs}
            size = sum(spec.nbytes for shard in plan.shards for spec in shard.specs)
            self._write_json(
                INDEX_NAME,
                {
                    "metadata": {"total_size": size, "total_parameters": plan.parameters},
                    "weight_map": dict(sorted(weight_map.items())),
                },
            )
        self._write_json("config.json", plan.config)

    def _write_json(self, name: str, value: Mapping[str, Any]) -> None:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        (self.work / name).write_text(text, encoding="utf-8")

    def finish(self, *, overwrite: bool) -> None:
        """Flush everything and rename the work folder to its place.

        Raises:
            OutputError: something has appeared there meanwhile, and is not to be replaced.
        """
        for descriptor in self._shards.values():
            os.fsync(descriptor)
        self.close()
        for path in self.work.iterdir():
            _flush(path)
        _flush(self.work)
        if self.final.exists() and not overwrite:
            raise OutputError(
                "has appeared while the result was made, and is not replaced",
                where=str(self.final),
                fix="--overwrite replaces it",
            )
        if self.final.exists():
            self._replace()
        else:
            self.work.rename(self.final)
        _flush(self.final.parent)

    def _replace(self) -> None:
        """The old folder steps aside, and comes back if the new one cannot take its place."""
        aside = Path(tempfile.mkdtemp(prefix=f".{self.final.name}.old-", dir=self.final.parent))
        old = aside / "was"
        try:
            self.final.rename(old)
            self.work.rename(self.final)
        except BaseException:
            if old.exists():
                old.rename(self.final)
            aside.rmdir()
            raise
        shutil.rmtree(aside)

    def close(self) -> None:
        """Close every shard."""
        for descriptor in (*self._shards.values(), *self._direct.values()):
            os.close(descriptor)
        self._shards.clear()
        self._direct.clear()


@contextmanager
def output_folder(final: Path) -> Iterator[OutputFolder]:
    """A work folder beside `final`; gone when the block ends, whatever happened in it.

    Raises:
        OutputError: in place of any OSError from the block.
    """
    folder: OutputFolder | None = None
    made: list[Path] = []
    try:
        _make_parents(final.parent, made)
        work = Path(tempfile.mkdtemp(prefix=f".{final.name}.part-", dir=final.parent))
        folder = OutputFolder(final, work)
        work.chmod(0o777 & ~_umask())
        yield folder
    except BaseException as error:
        _discard(folder)
        for parent in reversed(made):
            with suppress(OSError):  # somebody else may use it by now
                parent.rmdir()
        if isinstance(error, OSError):
            raise _output_error(error, final) from error
        raise
    finally:
        _discard(folder)


def _discard(folder: OutputFolder | None) -> None:
    if folder is not None:
        folder.close()
        shutil.rmtree(folder.work, ignore_errors=True)


def _make_parents(parent: Path, made: list[Path]) -> None:
    """Make missing folders, and note which, so that a failed run leaves none of them."""
    missing = []
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    for folder in reversed(missing):
        folder.mkdir()
        made.append(folder)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_FIXES = {
    errno.ENOSPC: "free space on that disk, or choose another with -o",
    errno.EDQUOT: "your quota on that disk is used up; choose another with -o",
    errno.EFBIG: "a file size limit is in force; a smaller output: max_shard_size may fit",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or output: max_shard_size",
    errno.EACCES: "choose a folder that you may write to with -o",
    errno.EROFS: "that disk is mounted read-only; choose another with -o",
}


def _output_error(error: OSError, final: Path) -> OutputError:
    return OutputError(
        f"writing failed: {error.strerror or error}",
        where=str(final),
        fix=_FIXES.get(error.errno or 0, ""),
    )
