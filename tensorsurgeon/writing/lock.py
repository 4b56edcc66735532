"""One run at a time on one output: the lock of a workplace, and who holds it."""

import errno
import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tensorsurgeon.errors import BusyError, OutputError
from tensorsurgeon.writing.disk import Disk
from tensorsurgeon.writing.workplace import Workplace

_TRIES, _PAUSE = 20, 0.01
"""How often something is tried that takes another process an instant, and seconds in between."""


@contextmanager
def locked(place: Workplace, disk: Disk) -> Iterator[None]:
    """Hold the lock of a workplace, which is made if need be.

    Raises:
        BusyError: another run holds it; names that run.
        OutputError: the file system has no locks, or something else is in the way.
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


def holder_of(place: Workplace) -> str | None:
    """Who is at work in a workplace, for people; None where nobody is."""
    try:
        descriptor = _open(place.lock, os.O_RDONLY)
    except (OSError, OutputError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _holder(place)
    finally:
        os.close(descriptor)
    return None


def _take(place: Workplace, disk: Disk) -> int:
    """The descriptor of the lock's file, locked.

    The run that had the lock removes its file at the end, so one must be sure to hold the lock of
    the file that is there now.
    """
    tries = _TRIES
    while True:
        made = _make_root(place, disk)
        try:
            descriptor = _open(place.lock, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:  # removed since
            continue
        except OSError:
            if made:
                with suppress(OSError):
                    disk.remove_folder(place.root)
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), place.lock.lstat()):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                os.close(descriptor)
                raise OutputError(
                    f"cannot be locked: {error.strerror}",
                    where=str(place.lock),
                    fix="choose a disk whose file system has locks (flock) with -o",
                ) from None
            tries -= 1
            if not tries or not _is_only_looked_at(descriptor):
                os.close(descriptor)
                raise _busy(place) from None
            time.sleep(_PAUSE)
        os.close(descriptor)


def _is_only_looked_at(descriptor: int) -> bool:
    """Whether those who have the lock share it: as `holder_of` does, for an instant."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _make_root(place: Workplace, disk: Disk) -> bool:
    """Make the work folder; False where it is there. A link there is not followed."""
    try:
        disk.make_folder(place.root)
    except FileExistsError:
        with suppress(FileNotFoundError):  # removed since
            if not stat.S_ISDIR(place.root.lstat().st_mode):
                raise _in_the_way(place.root) from None
        return False
    return True


def _open(lock: Path, flags: int) -> int:
    """Open a lock's file, which must be a regular one; neither follows a link nor waits."""
    try:
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(lock, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _in_the_way(lock) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _in_the_way(lock)
    return descriptor


def _in_the_way(path: Path) -> OutputError:
    return OutputError(
        "is in the way of a work folder",
        where=str(path),
        fix="give it another name, or choose another folder with -o",
    )


def _busy(place: Workplace) -> BusyError:
    return BusyError(
        f"another run is making it: {_holder(place)}",
        where=str(place.final),
        fix="wait for it, stop it, or choose another folder with -o",
    )


def _holder(place: Workplace) -> str:
    """Who holds the lock; it may be about to write its name there."""
    for _ in range(_TRIES):
        try:
            value: Any = json.loads(place.lock.read_bytes())
            if not _has_ended(value):  # else it is the name of the one before
                return f"process {value['pid']} on {value['host']} since {value['since']}"
        except (OSError, ValueError, TypeError, KeyError, OverflowError):
            pass
        time.sleep(_PAUSE)
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
