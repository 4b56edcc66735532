"""The journal of a run: which tensors are on the disk, and their digests.

A text file. Each line is the CRC-32 of what follows it as eight hexadecimal digits, a space, and
a JSON object. The first line names the work by its binding and the run; then comes a line for each
tensor, written only after the tensor's bytes were flushed; where shards are sent elsewhere, one for
each that has arrived; at the very end one that says that the checkpoint is complete. The last line
may be torn by a crash: reading stops at the first that its CRC does not fit, and writing goes on
there.
"""

import errno
import json
import os
import re
import stat
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorsurgeon.checkpoint.strict_json import StrictJSONError, parse_object
from tensorsurgeon.errors import OutputError
from tensorsurgeon.writing.disk import Disk

BATCH_SECONDS = 2.0
"""Seconds of work that a crash may cost: tensors are flushed and noted down this often."""

_LIMIT = 500_000_000
"""Largest journal read, in bytes; one of 100,000 tensors takes 15 MB."""


_ANY = re.compile(r".*", re.DOTALL)
_FORMS = {
    "binding": re.compile(r"[0-9a-f]{64}"),
    "run": re.compile(r"[0-9a-f]{32}"),
    "sha256": re.compile(r"[0-9a-f]{64}"),
}
"""What goes into the manifest must be of this form."""


@dataclass(kw_only=True)
class Record:
    """What a journal says.

    Attributes:
        binding: which work it is of: the same recipe, inputs and version have the same.
        run: which run began it.
        digests: SHA-256 of each tensor that is on the disk, or was.
        delivered: SHA-256 of each shard that was sent elsewhere, and is not needed here any more.
        complete: whether the whole checkpoint is.
        nbytes: length of the journal that holds good.
    """

    binding: str
    run: str
    digests: dict[str, str] = field(default_factory=dict)
    delivered: dict[str, str] = field(default_factory=dict)
    complete: bool = False
    nbytes: int = 0


def read_journal(path: Path) -> Record | None:
    """What a journal says, as far as its lines are whole; None where there is none to go by.

    Raises:
        OutputError: it is there, but cannot be read.
    """
    data = _content(path)
    record: Record | None = None
    at = 0
    while (end := data.find(b"\n", at)) >= 0:
        line = _parse(data[at:end])
        if line is None:
            break
        if record is None:
            if line.keys() != {"binding", "run"}:
                break
            record = Record(binding=line["binding"], run=line["run"])
        elif line.keys() == {"tensor", "sha256"}:
            record.digests[line["tensor"]] = line["sha256"]
        elif line.keys() == {"delivered", "sha256"}:
            record.delivered[line["delivered"]] = line["sha256"]
        elif line.keys() == {"complete"}:
            record.complete = True
        else:
            break
        at = end + 1
        record.nbytes = at
    return record


def _content(path: Path) -> bytes:
    """The file's bytes; none where there is no file, or something else than one."""
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with open(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LIMIT:
                return b""
            return file.read()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO):
            return b""
        raise OutputError(f"cannot be read: {error.strerror}", where=str(path)) from None


def _parse(line: bytes) -> dict[str, str] | None:
    crc, _, text = line.partition(b" ")
    if crc != b"%08x" % zlib.crc32(text):
        return None
    try:
        value = parse_object(text)
    except StrictJSONError:
        return None
    good = all(
        isinstance(item, str) and _FORMS.get(key, _ANY).fullmatch(item)
        for key, item in value.items()
    )
    return value if good else None


def _line(**values: Any) -> bytes:
    text = json.dumps(values).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


class Journal:
    """A journal that is written, by any thread.

    Args:
        disk: where to.
        path: its file.
        record: what it says already, when a run goes on; else what its first line shall say.
        flush_tensors: has all bytes of tensors written so far on the disk when it returns.
    """

    def __init__(
        self, disk: Disk, path: Path, record: Record, flush_tensors: Callable[[], None]
    ) -> None:
        self._disk = disk
        self._flush_tensors = flush_tensors
        self._record = record
        self._waiting: dict[str, str] = {}
        self._flushed = time.monotonic()
        self._adding, self._flushing = threading.Lock(), threading.Lock()
        if record.nbytes:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            disk.resize(self._descriptor, record.nbytes)
        else:
            self._descriptor = disk.create(path)
            # Without tensors it is worth nothing, so this line is flushed with the first of them.
            self._write(_line(binding=record.binding, run=record.run))

    @property
    def run(self) -> str:
        """The run that began the journal."""
        return self._record.run

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each tensor that was written."""
        return {**self._record.digests, **self._waiting}

    @property
    def delivered(self) -> dict[str, str]:
        """SHA-256 of each shard that was sent elsewhere."""
        return dict(self._record.delivered)

    def add(self, tensor: str, digest: str) -> None:
        """Note that a tensor was written; from time to time, flush what was noted."""
        with self._adding:
            self._waiting[tensor] = digest
        if time.monotonic() - self._flushed >= BATCH_SECONDS and self._flushing.acquire(
            blocking=False
        ):
            try:
                self._flush()
            finally:
                self._flushing.release()

    def flush(self) -> None:
        """Have all that was noted on the disk, after all bytes of the shards."""
        with self._flushing:
            self._flush_tensors()  # the headers, where no tensor was left to make
            self._flush()

    def deliver(self, shard: str, digest: str) -> None:
        """Note that a shard has arrived elsewhere; when this returns, its file can be removed."""
        self._append(_line(delivered=shard, sha256=digest))
        self._record.delivered[shard] = digest

    def complete(self) -> None:
        """Note that the whole checkpoint is on the disk; where this is lost, nothing else is."""
        self._write(_line(complete="yes"))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _flush(self) -> None:
        with self._adding:
            batch = dict(self._waiting)
        if batch:
            self._flush_tensors()
            self._append(b"".join(_line(tensor=name, sha256=batch[name]) for name in batch))
            with self._adding:
                self._record.digests |= batch
                for name in batch:
                    del self._waiting[name]
        self._flushed = time.monotonic()

    def _append(self, data: bytes) -> None:
        self._write(data)
        self._disk.flush(self._descriptor)

    def _write(self, data: bytes) -> None:
        self._disk.write(self._descriptor, memoryview(data), self._record.nbytes)
        self._record.nbytes += len(data)
