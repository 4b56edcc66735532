"""Tensors read from the Hub while they are merged; nothing of them is stored.

Each thread has one request on its way for each tensor that it reads, from the first byte to the
last, so that the network goes on while spans are computed. What a tensor's method needs a second
time is written to a temporary file as it comes, and not asked for again.
"""

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from tensorsurgeon.checkpoint import FileIdentity, RemoteFile, Repo, ShardReader
from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.hub.errors import explained
from tensorsurgeon.hub.requests import TRIES, Address, part_of, pause_after, refuse
from tensorsurgeon.plan import Plan, read_twice
from tensorsurgeon.specs import StoredTensor

_EXPIRED = frozenset({400, 401, 403, 404, 410})
"""What a host answers to an address whose signature is too old."""


@dataclass
class _Link:
    """A file of a repository, as all threads know it."""

    repo: Repo
    name: str
    size: int
    address: Address
    etag: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, response: httpx2.Response) -> None:
        """Keep where the Hub has sent us; refuse another content than before."""
        etag = response.headers.get("ETag", "")
        with self.lock:
            if self.etag is None:
                self.etag = etag
            if self.etag != etag:
                raise CheckpointError(
                    "has changed while it was read", where=f"{self.repo}/{self.name}"
                )
            if response.url.netloc != httpx2.URL(constants.ENDPOINT).netloc:
                self.address = Address(url=str(response.url), is_signed=True)

    def is_expired(self, response: httpx2.Response) -> bool:
        """Whether an answer is another host's, to an address whose signature it takes no more.

        The next request goes to the Hub then, for a new one.
        """
        hub = Address.of(self.repo.name, self.repo.commit, self.name)
        with self.lock:
            self.address = hub
        return response.status_code in _EXPIRED and str(response.url) != hub.url


class _Stream:
    """The bytes of a file from `start` to `end`, in order, whatever happens to a connection."""

    def __init__(self, link: _Link, start: int, end: int) -> None:
        self.position = start
        self._link, self._end = link, end
        self._rest = memoryview(b"")
        self._pieces: Iterator[bytes] | None = None
        self._opened = ExitStack()

    def read_into(self, buffer: memoryview) -> None:
        """Fill a buffer with the next bytes."""
        done = 0
        while done < len(buffer):
            if not self._rest:
                self._rest = memoryview(self._next_piece())
            piece = self._rest[: len(buffer) - done]
            buffer[done : done + len(piece)] = piece
            self._rest = self._rest[len(piece) :]
            done += len(piece)
            self.position += len(piece)

    def close(self) -> None:
        """Give up what has not come yet."""
        self._pieces = None
        self._opened.close()

    def _next_piece(self) -> bytes:
        for number in range(TRIES):
            try:
                if self._pieces is None:
                    self._pieces = self._connect()
                piece = next(self._pieces, b"")
                if not piece:
                    raise httpx2.RemoteProtocolError(f"ended at byte {self.position}")
                if self.position + len(piece) > self._end:
                    refuse("the server sends more than was asked for")
                return piece
            except (httpx2.HTTPError, HfHubHTTPError) as error:
                self.close()
                if isinstance(error, HfHubHTTPError) and self._link.is_expired(error.response):
                    pause = 0.0
                else:
                    pause = pause_after(error, number)
                if number == TRIES - 1:
                    raise
                time.sleep(pause)
        raise AssertionError("the last try either returns or raises")

    def _connect(self) -> Iterator[bytes]:
        link = self._link
        part = part_of(link.address, self.position, self._end - self.position, link.size)
        response = self._opened.enter_context(part)
        link.note(response)
        return response.iter_raw()


@dataclass
class _Reading:
    """A tensor that a thread is reading: its stream, and its copy where it is read twice."""

    stream: _Stream
    copy: BinaryIO | None = None
    copied: int = 0


class HubReader:
    """Reads as `ShardReader` does, files that are here and files that are not.

    Args:
        plan: what is read.
        scratch: a folder for temporary files, which have no names there.

    Raises:
        CheckpointError: a file that is here cannot be opened, or is another by now.
    """

    def __init__(self, plan: Plan, scratch: Path) -> None:
        here, self._links = {}, {}
        for path in plan.paths():
            identity = plan.identities[path]
            if isinstance(identity, FileIdentity):
                here[path] = identity
            else:
                self._links[path] = _link(plan.repos[path.parent], path.name, identity)
        self._local = ShardReader(here)
        self._scratch = scratch
        self._twice = read_twice(plan)
        self._of_thread = threading.local()

    def read_into(self, tensor: StoredTensor, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the tensor's bytes from byte `start` of it on.

        Raises:
            CheckpointError: as `ShardReader`; or the Hub cannot be read, or has another content.
        """
        link = self._links.get(tensor.path)
        if link is None:
            self._local.read_into(tensor, start, buffer)
            return
        with explained(link.repo.name, revision=link.repo.revision, file=link.name):
            self._read(self._reading(tensor, link, start), start, buffer)

    def finish(self) -> None:
        """Let go of what this thread holds of the tensors it has read."""
        for reading in self._readings().values():
            reading.stream.close()
            if reading.copy is not None:
                reading.copy.close()
        self._readings().clear()

    def check_unchanged(self) -> None:
        """Whether the files that are here still are what they were. A commit does not change."""
        self._local.check_unchanged()

    def close(self) -> None:
        """Close every file; the threads have finished."""
        self._local.close()

    def _readings(self) -> dict[StoredTensor, _Reading]:
        if not hasattr(self._of_thread, "readings"):
            self._of_thread.readings = {}
        readings: dict[StoredTensor, _Reading] = self._of_thread.readings
        return readings

    def _reading(self, tensor: StoredTensor, link: _Link, start: int) -> _Reading:
        """The tensor's stream, at `start` or behind what the copy has."""
        readings = self._readings()
        reading = readings.get(tensor)
        if reading is None:
            copy = None
            if tensor in self._twice:
                copy = tempfile.TemporaryFile(dir=self._scratch, buffering=0)  # noqa: SIM115
            reading = readings[tensor] = _Reading(_stream(tensor, link, 0), copy)
        if reading.copy is None and reading.stream.position != tensor.offset + start:
            reading.stream.close()
            reading.stream = _stream(tensor, link, start)
        return reading

    def _read(self, reading: _Reading, start: int, buffer: memoryview) -> None:
        if reading.copy is None:
            reading.stream.read_into(buffer)
            return
        if start > reading.copied:
            raise AssertionError("what is read twice is read in order")
        had = min(len(buffer), reading.copied - start)
        _read_all(reading.copy.fileno(), buffer[:had], start)
        if had < len(buffer):
            reading.stream.read_into(buffer[had:])
            _write_all(reading.copy.fileno(), buffer[had:], reading.copied)
            reading.copied += len(buffer) - had


def _link(repo: Repo, name: str, file: RemoteFile) -> _Link:
    address = Address.of(repo.name, repo.commit, name)
    return _Link(repo=repo, name=name, size=file.nbytes, address=address)


def _stream(tensor: StoredTensor, link: _Link, start: int) -> _Stream:
    return _Stream(link, tensor.offset + start, tensor.offset + tensor.spec.nbytes)


def _read_all(descriptor: int, buffer: memoryview, at: int) -> None:
    done = 0
    while done < len(buffer):
        got = os.preadv(descriptor, [buffer[done:]], at + done)
        if not got:
            raise OSError("a temporary file is shorter than it was")
        done += got


def _write_all(descriptor: int, data: memoryview, at: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], at + done)
