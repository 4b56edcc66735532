"""One host of the Hub: HTTP/1.1 on a loopback address, a thread for each connection."""

import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import BinaryIO

from tests.hub.content import PIECE
from tests.hub.faults import Fault, Faults
from tests.hub.line import Line
from tests.hub.log import Exchange, RequestLog
from tests.hub.messages import PROMPT, Request, Response, Route, dispatch

STEP = 4 * PIECE
"""Bytes that are given to the socket at a time."""

POLL = 0.02
"""Seconds within which a stopped server notices."""

SLICE = 0.05
"""Seconds after which a pause looks whether anybody still waits."""

LINE_STEP = PIECE // 4
"""The same where connections share a line: small, so that they take turns."""

UNBODIED = (204, 304)
"""Statuses that never have a body."""


class Host:
    """A server that runs from `start` to `stop`.

    Attributes:
        name: how it is called in the log.
        url: scheme, address and port.
        routes: what it answers; set before `start`.
        line: what its answers have to go through.
        accepted: how many connections were made to it.
    """

    def __init__(self, name: str, address: str, faults: Faults, log: RequestLog):
        self.name = name
        self.faults = faults
        self.log = log
        self.routes: tuple[Route, ...] = ()
        self.line = Line()
        self.accepted = 0
        self.stopping = threading.Event()
        self._server = Server(address, self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL,), daemon=True
        )
        self.url = "http://{}:{}".format(*self._server.socket.getsockname())

    def start(self) -> None:
        """Begins to answer; connections made before were kept waiting."""
        self._thread.start()

    def stop(self) -> None:
        """Ends all connections. Raises what went wrong in a handler, if anything did."""
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.hang_up()
        if self._server.broken:
            raise self._server.broken[0]


class Server(ThreadingMixIn, TCPServer):
    """The listening socket and the open connections."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: str, host: Host):
        self.host = host
        self.broken: list[BaseException] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__((address, 0), Connection)

    def process_request(self, request: object, client_address: object) -> None:
        assert isinstance(request, socket.socket)
        with self._lock:
            self._open.add(request)
            self.host.accepted += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: object) -> None:
        assert isinstance(request, socket.socket)
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Closes what connections there are."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Called where the exception is at hand; that a client has gone is none."""


class Connection(BaseHTTPRequestHandler):
    """A connection and the requests that come over it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rbufsize = 1 << 16
    server: Server

    def handle(self) -> None:
        """Answers until one side has had enough; what a handler raises is kept for `Host.stop`."""
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True
        except Exception as error:
            self.server.broken.append(error)
            raise

    def exchange(self) -> None:
        """Answers one request."""
        host = self.server.host
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.entry = Exchange(
            host=host.name, method=self.command, target=self.path, headers=headers
        )
        self.body = self._read_body()
        host.log.begin(self.entry)
        try:
            request = Request(
                host=host.name,
                url=host.url,
                method=self.command,
                target=self.path,
                headers=headers,
                pieces=lambda: self.body,
            )
            fault = host.faults.take(request)
            self.entry.fault = None if fault is None else repr(fault)
            self._deliver(self._answer(request, fault))
        finally:
            host.log.end(self.entry)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = exchange  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing: `RequestLog` has it."""

    def _answer(self, request: Request, fault: Fault | None) -> Response:
        if fault is None:
            return dispatch(self.server.host.routes, request)
        early = fault.before(request)
        if early is not None:
            return early
        return fault.after(dispatch(self.server.host.routes, request))

    def _read_body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            yield from self._read(int(self.headers.get("Content-Length", 0)))
            return
        while size := int(self._read_line().split(b";")[0], 16):
            yield from self._read(size)
            self._read_line()
        self._read_line()

    def _read(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self.rfile.read(min(size, PIECE))
            if not piece:
                raise ConnectionAbortedError("the client went in the middle of a body")
            size -= len(piece)
            self.entry.received += len(piece)
            yield piece

    def _read_line(self) -> bytes:
        line = self.rfile.readline()
        if not line.endswith(b"\n"):
            raise ConnectionAbortedError("the client went in the middle of a body")
        return line

    def _deliver(self, response: Response) -> None:
        delivery = response.delivery
        if not (delivery.lost and delivery.reset):
            # A connection closed with bytes unread would be reset.
            for _ in self.body:
                pass
        if delivery.lost:
            self._abandon(reset=delivery.reset)
            return
        line = self.server.host.line
        self._pause(delivery.wait + line.latency)
        head = self._head(response)
        self.entry.status = response.status
        bodied = self.command != "HEAD" and response.status not in UNBODIED
        if bodied and response.length <= PIECE and delivery == PROMPT and not line.rate:
            self.connection.sendall(
                head + response.content.read_at(response.start, response.length)
            )
            self.entry.sent = response.length
            return
        self.connection.sendall(head)
        if bodied:
            self._send_body(response)
            if delivery.cut is not None:
                self._abandon(reset=delivery.reset)

    def _head(self, response: Response) -> bytes:
        fields = {"Date": self.date_time_string(), **response.headers}
        if response.status not in UNBODIED:
            fields["Content-Length"] = str(response.length)
        first = f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"
        lines = [first, *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def _send_body(self, response: Response) -> None:
        delivery, line = response.delivery, self.server.host.line
        stall_at, stall_for = delivery.stall or (None, 0.0)
        step = LINE_STEP if line.rate else STEP
        if delivery.rate is not None:
            step = max(1, min(1 << 16, int(delivery.rate / 20)))
        stop = response.length if delivery.cut is None else min(delivery.cut, response.length)
        marks = sorted({stop} | {at for at in (stall_at, delivery.flip) if at is not None})
        done = 0
        with contextlib.ExitStack() as stack:
            source = response.content.source
            file = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
            while done < stop:
                if done == stall_at:
                    self._pause(stall_for)
                at = response.start + done
                if done == delivery.flip:
                    sent = self.connection.send(bytes([response.content.read_at(at, 1)[0] ^ 1]))
                else:
                    count = min(step, next(mark for mark in marks if mark > done) - done)
                    line.wait_for(count)
                    sent = self._send(file, at, count)
                done += sent
                self.entry.sent += sent
                if delivery.rate is not None:
                    self._pause(sent / delivery.rate)
        if stall_at == stop:
            self._pause(stall_for)

    def _send(self, source: bytes | BinaryIO, start: int, count: int) -> int:
        if isinstance(source, bytes):
            return int(self.connection.send(memoryview(source)[start : start + count]))
        sent = os.sendfile(self.connection.fileno(), source.fileno(), start, count)
        assert sent, f"{source.name} has become shorter"
        return sent

    def _pause(self, seconds: float) -> None:
        """Waits, but not for a client that has gone or beyond the end of the server."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.server.host.stopping.is_set():
                raise ConnectionAbortedError("the server stops")
            readable, _, _ = select.select([self.connection], [], [], min(left, SLICE))
            if readable:
                if not self.connection.recv(1, socket.MSG_PEEK):
                    raise ConnectionAbortedError("the client has gone")
                time.sleep(min(left, SLICE))

    def _abandon(self, *, reset: bool) -> None:
        self.close_connection = True
        if reset:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            # `close` would wait for the files made of the socket.
            os.close(self.connection.detach())
