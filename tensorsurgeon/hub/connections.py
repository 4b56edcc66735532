"""Ranges of files read straight into the caller's buffers, over connections that are used again.

The Hub's client hands out a body in pieces of 64 KiB, each copied four times on its way: 1.2
seconds of a processor for a gigabyte, where a linear merge takes 0.9. So the client finds the way,
with its redirects and tokens, and the ranges come by the standard library, with which the kernel
writes into a span, for 0.5. Where that cannot connect, and where there is a proxy, the client does
all of it.
"""

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Protocol
from urllib.request import getproxies
from weakref import WeakSet

import httpx2

from tensorsurgeon.hub.requests import (
    Address,
    check_part,
    part_of,
    patience,
    range_headers,
    refuse,
)

_PORTS = {"http": 80, "https": 443}


class Answer(Protocol):
    """A range on its way.

    Attributes:
        response: its head, whose claims are checked.
    """

    response: httpx2.Response

    def read_into(self, buffer: memoryview) -> int:
        """Fill as much of a buffer as has come; returns how much, 0 only at the end."""

    def close(self) -> None:
        """Give up what has not come yet."""


class Connections:
    """Asks for ranges, from any thread. To be closed."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, bytes], list[http.client.HTTPConnection]] = {}
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._proxied = getproxies().keys()

    def ask(self, address: Address, start: int, count: int, size: int) -> Answer:
        """Ask for a range of a file where it is; arguments and errors are those of `part_of`."""
        url = httpx2.URL(address.url)
        asked = range_headers(address, start, count)
        answer = None
        if not {url.scheme, "all"} & self._proxied:
            idle = self._idle.setdefault((url.scheme, url.netloc), [])
            answer = _ask_again(idle, url, asked, count) or self._ask_anew(idle, url, asked, count)
        if answer is None:
            return ask_client(address, start, count, size)
        if answer.response.has_redirect_location:
            answer.close()
            return ask_client(address, start, count, size)
        try:
            check_part(answer.response, start, count, size)
        except BaseException:
            answer.close()
            raise
        return answer

    def stop(self) -> None:
        """Have all that is on its way fail now."""
        with self._lock:
            sockets = list(self._sockets)
        for each in sockets:
            with suppress(OSError):  # it is closed already
                socket.socket.shutdown(each, socket.SHUT_RDWR)  # of TLS, the connection below

    def close(self) -> None:
        """Close the connections; nobody uses them any more."""
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()

    def _ask_anew(
        self,
        idle: list[http.client.HTTPConnection],
        url: httpx2.URL,
        asked: dict[str, str],
        count: int,
    ) -> "_Straight | None":
        """Ask over a new connection; None if none can be made."""
        host, port, wait = url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme], patience()
        if url.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=wait.connect, context=self._tls()
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=wait.connect)
        try:
            connection.connect()
        except OSError:
            return None
        connection.sock.settimeout(wait.read)
        with self._lock:
            self._sockets.add(connection.sock)
        connection.auto_open = 0
        return _Straight(connection, idle, url, asked, count)

    def _tls(self) -> ssl.SSLContext:
        """Whom the client trusts."""
        with self._lock:
            self._context = self._context or httpx2.create_ssl_context()
        return self._context


def _ask_again(
    idle: list[http.client.HTTPConnection], url: httpx2.URL, asked: dict[str, str], count: int
) -> "_Straight | None":
    """Ask over a connection that is there; None if none is, or none any more."""
    while True:
        try:
            return _Straight(idle.pop(), idle, url, asked, count)
        except IndexError:
            return None
        except (httpx2.ReadError, httpx2.RemoteProtocolError):
            pass  # the server had closed it


def ask_client(address: Address, start: int, count: int, size: int) -> Answer:
    """The same by the Hub's client alone, which follows redirects."""
    return _Handed(address, start, count, size)


class _Straight:
    """An answer that the kernel writes into the caller's buffer.

    Args:
        connection: what to ask over.
        idle: where to put it when the answer has come to its end.
        url: the file.
        asked: headers of the request.
        count: bytes to come.
    """

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        idle: list[http.client.HTTPConnection],
        url: httpx2.URL,
        asked: dict[str, str],
        count: int,
    ) -> None:
        self._connection, self._idle, self._left = connection, idle, count
        with self._explained():
            connection.request("GET", url.raw_path.decode("ascii"), headers=asked)
            self._body = connection.getresponse()
        self.response = httpx2.Response(
            self._body.status,
            headers=self._body.getheaders(),
            request=httpx2.Request("GET", url),
        )

    def read_into(self, buffer: memoryview) -> int:
        with self._explained():
            got = self._body.readinto(buffer[: self._left])
        self._left -= got
        return got

    def close(self) -> None:
        if self._left or self._body.will_close or not self._body.isclosed():
            self._body.close()
            self._connection.close()
        else:
            self._idle.append(self._connection)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of the standard library, as the client's."""
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            if isinstance(error, TimeoutError):
                raise httpx2.ReadTimeout("no byte in time") from None
            kind = httpx2.ReadError if isinstance(error, OSError) else httpx2.RemoteProtocolError
            raise kind(type(error).__name__) from None


class _Handed:
    """An answer as the client hands it out."""

    def __init__(self, address: Address, start: int, count: int, size: int) -> None:
        self._opened = ExitStack()
        self.response = self._opened.enter_context(part_of(address, start, count, size))
        self._pieces = self.response.iter_raw()
        self._rest = memoryview(b"")
        self._left = count

    def read_into(self, buffer: memoryview) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
            self._left -= len(self._rest)
            if self._left < 0:
                refuse("the server sends more than was asked for")
        piece = self._rest[: len(buffer)]
        buffer[: len(piece)] = piece
        self._rest = self._rest[len(piece) :]
        return len(piece)

    def close(self) -> None:
        self._opened.close()
