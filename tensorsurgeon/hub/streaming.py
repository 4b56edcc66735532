"""Tensors read from the Hub while they are merged; nothing of them is stored.

Each thread has one request on its way for each tensor that it reads, from the first byte to the
last, so that the network goes on while spans are computed. What a tensor's method needs a second
time is written to a temporary file as it comes, and not asked for again.
"""

import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx2
from huggingface_hub import close_session, constants
from huggingface_hub.errors import HfHubHTTPError

from tensorsurgeon.checkpoint import FileIdentity, Repo, ShardReader
from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.hub.connections import Answer, Connections, ask_client
from tensorsurgeon.hub.errors import explained
from tensorsurgeon.hub.requests import TRIES, Address, part_of, pause_after
from tensorsurgeon.plan import Plan, read_twice
from tensorsurgeon.plan.nodes import read_twice_in
from tensorsurgeon.specs import StoredTensor

_EXPIRED = frozenset({400, 401, 403, 404, 410})
"""What a host answers to an address whose signature is too old."""

_PIECE = 1 << 20
"""Bytes of a gap in what is read that are copied at a time."""


class _Link:
    """A file of a repository, as all threads know it."""

    def __init__(self, repo: Repo, name: str, size: int) -> None:
        self.repo, self.name, self.size = repo, name, size
        self._hub = Address.of(repo.name, repo.commit, name)
        self._found: Address | None = None
        self._etag: str | None = None
        self._lock = threading.RLock()

    def find(self) -> Address:
        """Where the file is; the Hub is asked once, and again when what it said is too old."""
        with self._lock:
            if self._found is None:
                with part_of(self._hub, 0, 1, self.size) as response:
                    response.read()
                    self.note(response)
            assert self._found is not None
            return self._found

    def last(self) -> Address:
        """Where to ask the client for it: where it was found, or at the Hub."""
        return self._found or self._hub

    def note(self, response: httpx2.Response) -> None:
        """Keep where the Hub has sent us; refuse another content than before."""
        etag = response.headers.get("ETag", "")
        with self._lock:
            if self._etag is None:
                self._etag = etag
            if self._etag != etag:
                raise CheckpointError(
                    "has changed while it was read", where=f"{self.repo}/{self.name}"
                )
            is_hub = response.url.netloc == httpx2.URL(constants.ENDPOINT).netloc
            self._found = self._hub if is_hub else Address(url=str(response.url), is_signed=True)

    def is_expired(self, response: httpx2.Response) -> bool:
        """Whether an answer is another host's, to an address whose signature it takes no more.

        The next request goes to the Hub then, for a new one.
        """
        with self._lock:
            self._found = None
        return response.status_code in _EXPIRED and str(response.url) != self._hub.url


class _Stream:
    """The bytes of a file from `start` to `end`, in order, whatever happens to a connection."""

    def __init__(
        self,
        connections: Connections,
        link: _Link,
        start: int,
        end: int,
        stopped: threading.Event,
    ) -> None:
        self.position = start
        self._connections, self._link, self._end = connections, link, end
        self._stopped = stopped
        self._answer: Answer | None = None

    def read_into(self, buffer: memoryview) -> None:
        """Fill a buffer with the next bytes."""
        done = 0
        while done < len(buffer):
            count = self._some_into(buffer[done:])
            done += count
            self.position += count
        if self.position == self._end:
            self.close()

    def close(self) -> None:
        """Give up what has not come yet; leave the connection to others if all has."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()

    def _some_into(self, buffer: memoryview) -> int:
        for number in range(TRIES):
            try:
                if self._answer is None:
                    self._answer = self._ask(straight=number == 0)
                count = self._answer.read_into(buffer)
                if not count:
                    raise httpx2.RemoteProtocolError(f"ended at byte {self.position}")
                return count
            except (httpx2.HTTPError, HfHubHTTPError) as error:
                self.close()
                if isinstance(error, HfHubHTTPError) and self._link.is_expired(error.response):
                    pause = 0.0
                else:
                    pause = pause_after(error, number)
                if number == TRIES - 1 or self._stopped.wait(pause):
                    raise
        raise AssertionError("the last try either returns or raises")

    def _ask(self, *, straight: bool) -> Answer:
        link, count = self._link, self._end - self.position
        if straight:
            answer = self._connections.ask(link.find(), self.position, count, link.size)
        else:
            answer = ask_client(link.last(), self.position, count, link.size)
        link.note(answer.response)
        return answer


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
                self._links[path] = _Link(plan.repos[path.parent], path.name, identity.nbytes)
        self._local = ShardReader(here)
        self._connections = Connections()
        self._stopped = threading.Event()
        self._scratch = scratch
        self._twice = read_twice(plan)
        self._spare: list[BinaryIO] = []
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
                self._spare.append(reading.copy)
        self._readings().clear()

    def stop(self) -> None:
        """Have reads that wait for the network fail now, and try no more."""
        self._stopped.set()
        self._connections.stop()
        close_session()

    def check_unchanged(self) -> None:
        """Whether the files that are here still are what they were. A commit does not change."""
        self._local.check_unchanged()

    def close(self) -> None:
        """Close every file; the threads have finished."""
        for copy in self._spare:
            copy.close()
        self._connections.close()
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
            copy = self._copy(tensor.spec.nbytes) if tensor in self._twice else None
            reading = readings[tensor] = _Reading(self._stream(tensor, link, 0), copy)
        if reading.copy is None and reading.stream.position != tensor.offset + start:
            reading.stream.close()
            reading.stream = self._stream(tensor, link, start)
        return reading

    def _stream(self, tensor: StoredTensor, link: _Link, start: int) -> _Stream:
        begin, end = tensor.offset + start, tensor.offset + tensor.spec.nbytes
        return _Stream(self._connections, link, begin, end, self._stopped)

    def _copy(self, nbytes: int) -> BinaryIO:
        """A temporary file for so many bytes.

        One that has served already, if there is: to write over what is in memory takes half the
        processor time of new pages.
        """
        try:
            copy = self._spare.pop()
        except IndexError:
            return tempfile.TemporaryFile(dir=self._scratch, buffering=0)
        if os.fstat(copy.fileno()).st_size > nbytes:
            os.ftruncate(copy.fileno(), nbytes)
        return copy

    def _read(self, reading: _Reading, start: int, buffer: memoryview) -> None:
        if reading.copy is None:
            reading.stream.read_into(buffer)
            return
        gap = memoryview(bytearray(min(_PIECE, max(0, start - reading.copied))))
        while reading.copied < start:  # what is not wanted yet may be wanted then
            self._read(reading, reading.copied, gap[: start - reading.copied])
        had = min(len(buffer), reading.copied - start)
        _read_all(reading.copy.fileno(), buffer[:had], start)
        if had < len(buffer):
            reading.stream.read_into(buffer[had:])
            _write_all(reading.copy.fileno(), buffer[had:], reading.copied)
            reading.copied += len(buffer) - had


def spool_needed(plan: Plan, threads: int) -> int:
    """Most bytes of temporary files at a time, with so many tensors made at a time."""
    elsewhere = plan.to_fetch()
    spooled = [
        sum(
            tensor.spec.nbytes
            for tensor in set(read_twice_in(made.node))
            if tensor.path in elsewhere
        )
        for made in plan.tensors
    ]
    return sum(sorted(spooled, reverse=True)[:threads])


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
