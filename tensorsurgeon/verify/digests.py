"""SHA-256 of parts of files: threads take whole parts, largest first.

Reads are positioned and go to a buffer that each thread has of its own, and neither reading nor
digesting holds the interpreter's lock. A file that is written to, cut or replaced on the way is a
problem of that file, never a digest of a mixture.
"""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tensorsurgeon.checkpoint import FileIdentity, identify
from tensorsurgeon.errors import CheckpointError, Problem
from tensorsurgeon.processors import run_threads
from tensorsurgeon.specs import Progress

_BUFFER = 4 << 20
"""Bytes read at a time; a thread looks that often whether it shall stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """Consecutive bytes of a file: the whole of it, its header, or a tensor.

    Attributes:
        path: the file.
        start: where they begin, in bytes.
        nbytes: how many they are.
        what: what they are, for messages; empty for a whole file.
    """

    path: Path
    start: int
    nbytes: int
    what: str = ""


Digests = Mapping[Extent, str | Problem]
"""SHA-256 in hexadecimal, or why there is none."""


def digest_all(
    extents: Iterable[Extent],
    identities: Mapping[Path, FileIdentity],
    *,
    threads: int,
    progress: Progress | None = None,
) -> Digests:
    """Read and digest parts of files.

    Args:
        extents: the parts.
        identities: the files as they were before anything of them was read.
        threads: how many parts are read at a time.
        progress: told how far it is.

    Raises:
        KeyboardInterrupt: after the threads have stopped.
    """
    work = _Work(extents, identities)
    work.run(threads, progress or (lambda _done, _total: None))
    return work.digests


def changed(path: Path) -> Problem:
    """What is to be said of a file that was written to while it was verified."""
    return Problem(
        where=str(path),
        what="has changed while it was verified",
        fix="verify again once nothing writes to it any more",
    )


class _StoppedError(Exception):
    """Raised in a thread when another one failed or the user interrupted."""


class _ChangedError(Exception):
    """A file is no longer what it was when the verification began."""


class _Work:
    """The parts still to be read, and what the threads share."""

    def __init__(self, extents: Iterable[Extent], identities: Mapping[Path, FileIdentity]) -> None:
        self.digests: dict[Extent, str | Problem] = {}
        self._waiting = deque(sorted(extents, key=lambda extent: -extent.nbytes))
        self._identities = identities
        self._total = sum(extent.nbytes for extent in self._waiting)
        self._buffer = min(_BUFFER, self._waiting[0].nbytes) if self._waiting else 0
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._done: list[int] = []

    def run(self, threads: int, progress: Progress) -> None:
        """Digest every part, and raise the first thing that nobody foresaw."""
        self._done = [0] * min(threads, len(self._waiting))

        def tick() -> None:
            progress(sum(self._done), self._total)

        run_threads(self._work, len(self._done), name="digests", tick=tick, stop=self._stop)
        if self._failures:
            raise self._failures[0]
        progress(self._total, self._total)

    def _work(self, index: int) -> None:
        """What one thread does: take a part, digest it, take the next."""
        try:
            buffer = memoryview(bytearray(self._buffer))
            while not self._stop.is_set():
                try:
                    extent = self._waiting.popleft()
                except IndexError:  # none is left
                    return
                self.digests[extent] = self._digest(extent, buffer, index)
        except _StoppedError:
            pass
        except BaseException as error:
            self._failures.append(error)
            self._stop.set()

    def _digest(self, extent: Extent, buffer: memoryview, index: int) -> str | Problem:
        try:
            # It was a regular file; without waiting, for it may have become a pipe since.
            descriptor = os.open(extent.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                return self._read(descriptor, extent, buffer, index)
            finally:
                os.close(descriptor)
        except _ChangedError:
            return changed(extent.path)
        except CheckpointError as error:
            return error.problems[0]
        except OSError as error:
            inside = f", inside {extent.what}" if extent.what else ""
            return Problem(
                where=str(extent.path),
                what=f"cannot be read: {error.strerror} (at or after byte {extent.start}{inside})",
            )

    def _read(self, descriptor: int, extent: Extent, buffer: memoryview, index: int) -> str:
        before, digest = self._identities[extent.path], hashlib.sha256()
        at, end = extent.start, extent.start + extent.nbytes
        while at < end:
            got = os.preadv(descriptor, [buffer[: end - at]], at)
            if got == 0 or identify(descriptor) != before:
                raise _ChangedError
            digest.update(buffer[:got])
            at += got
            self._done[index] += got
            if self._stop.is_set():
                raise _StoppedError
        return digest.hexdigest()
