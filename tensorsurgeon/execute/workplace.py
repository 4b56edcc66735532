"""Where a result is made: beside its place, under a lock, and moved there whole.

While `DIR` is made there is a folder `.DIR.part` beside it, on the same file system, with

- `lock`, held by the run that is at work, with its process, host and start in it;
- `journal`, what of the result is on the disk already;
- `checkpoint`, the result itself.

The order of a run, in which every step may be its last:

1. Take the lock. The system gives it back when the process ends, however it ends.
2. Read the journal. If it is of the same work, go on from it; else start afresh: a new `checkpoint`
   and then a new journal, both flushed, and the folders they are in.
3. Lay the shards down at their full sizes, headers written. Write tensors; from time to time flush
   the shards, then note in the journal which tensors are on the disk, and flush the journal.
4. Write config, tokenizer and other files, the index, and last the manifest; flush each, then
   `checkpoint`. Only then note in the journal that it is complete, and flush that.
5. Rename `checkpoint` to `DIR`, or exchange the two where `DIR` is to be replaced; flush the folder
   they are in.
6. Remove what is left.

A run that finds the journal complete begins with step 5. It knows that step 5 was done already when
the manifest in `DIR` names the journal's run. Where a file system cannot exchange, the old folder
steps aside as `.DIR.part/old`, and for an instant there is nothing at `DIR`.
"""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorsurgeon.checkpoint import MANIFEST_NAME, Manifest, read_manifest
from tensorsurgeon.errors import BusyError, ManifestError, OutputError
from tensorsurgeon.execute.disk import Disk
from tensorsurgeon.execute.journal import Record


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """The paths of one result.

    Attributes:
        final: where the result goes.
        root: the work folder beside it.
    """

    final: Path
    root: Path

    @classmethod
    def of(cls, final: Path) -> "Workplace":
        """The workplace of an output folder."""
        return cls(final=final, root=final.parent / f".{final.name}.part")

    @property
    def lock(self) -> Path:
        """The lock's file."""
        return self.root / "lock"

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.root / "journal"

    @property
    def checkpoint(self) -> Path:
        """The result while it is made."""
        return self.root / "checkpoint"

    @property
    def old(self) -> Path:
        """What is replaced, for an instant, where it cannot be exchanged."""
        return self.root / "old"

    def is_published(self, record: Record | None, binding: str) -> bool:
        """Whether the result of this work is in its place already.

        Args:
            record: what the journal says; None where there is none any more.
            binding: of the work that is asked for.
        """
        if not self.root.is_dir() or (record is not None and record.binding != binding):
            return False
        there = manifest_of(self.final)
        if there is None:
            return False
        if record is not None:
            return record.complete and there.created.get("run") == record.run
        return there.created.get("binding") == binding

    def publish(self, disk: Disk, *, overwrite: bool) -> None:
        """Put the complete checkpoint into its place.

        Raises:
            OutputError: something has appeared there meanwhile, and is not to be replaced.
        """
        if not _is_there(self.final):
            disk.rename(self.checkpoint, self.final)
        elif not overwrite:
            raise OutputError(
                "has appeared while the result was made, and is not replaced",
                where=str(self.final),
                fix="the result is kept: the same command with --overwrite puts it there",
            )
        elif not disk.exchange(self.checkpoint, self.final):
            disk.remove_tree(self.old)
            disk.rename(self.final, self.old)
            try:
                disk.rename(self.checkpoint, self.final)
            except BaseException:
                self.put_back(disk)
                raise
        disk.flush_folder(self.final.parent)

    def remove(self, disk: Disk) -> None:
        """Remove the work folder, the lock last; whoever holds it may do so."""
        for path in (self.checkpoint, self.old, self.journal, self.lock):
            disk.remove_tree(path)
        with suppress(OSError):  # another run may have come to this place meanwhile
            disk.remove(self.root)

    def put_back(self, disk: Disk) -> bool:
        """Give the old checkpoint its place back, where a run ended while it stood aside."""
        if not self.old.is_dir() or _is_there(self.final):
            return False
        disk.rename(self.old, self.final)
        disk.flush_folder(self.final.parent)
        return True


def manifest_of(folder: Path) -> Manifest | None:
    """The manifest of a checkpoint, where it has one that is sound."""
    try:
        return read_manifest(folder / MANIFEST_NAME)
    except ManifestError:
        return None


@contextmanager
def locked(place: Workplace, disk: Disk) -> Iterator[None]:
    """Hold the lock of a workplace, which is made if need be.

    Raises:
        BusyError: another run holds it; names that run.
        OutputError: the file system has no locks.
    """
    descriptor = _take(place, disk)
    try:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
        with suppress(OSError):  # a disk that is full shows soon enough
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(holder).encode())
        yield
    finally:
        os.close(descriptor)


def _take(place: Workplace, disk: Disk) -> int:
    """The descriptor of the lock's file, locked.

    The run that had the lock removes its file at the end, so one must be sure to hold the lock of
    the file that is there now.
    """
    while True:
        with suppress(FileExistsError):
            disk.make_folder(place.root)
        try:
            descriptor = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # removed since
            continue
        except OSError:
            with suppress(OSError):
                disk.remove(place.root)
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), place.lock.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise _busy(place) from None
            raise OutputError(
                f"cannot be locked: {error.strerror}",
                where=str(place.lock),
                fix="choose a disk whose file system has locks (flock) with -o",
            ) from None
        os.close(descriptor)


def holder_of(place: Workplace) -> str | None:
    """Who is at work in a workplace, for people; None where nobody is."""
    try:
        descriptor = os.open(place.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _holder(place)
    finally:
        os.close(descriptor)
    return None


def _busy(place: Workplace) -> BusyError:
    return BusyError(
        f"another run is making it: {_holder(place)}",
        where=str(place.final),
        fix="wait for it, stop it, or choose another folder with -o",
    )


def _holder(place: Workplace) -> str:
    """Who holds the lock; it may be about to write its name there."""
    for _ in range(20):
        try:
            value: Any = json.loads(place.lock.read_bytes())
            if not _has_ended(value):  # else it is the name of the one before
                return f"process {value['pid']} on {value['host']} since {value['since']}"
        except (OSError, ValueError, TypeError, KeyError, OverflowError):
            pass
        time.sleep(0.01)
    return "a process that does not tell its name"


def _has_ended(holder: Any) -> bool:
    """Whether a process that is named in a lock is one of this machine, and is no more."""
    if holder["host"] != socket.gethostname():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z")


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()
