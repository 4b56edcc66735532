"""The requests that a host was sent, in the order in which they came."""

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

SETTLING = 2.0
"""Seconds that a reader of the log waits at most for answers still on their way."""


@dataclass(kw_only=True, slots=True, eq=False)
class Exchange:
    """A request and what became of it; status and counts grow until the answer is sent.

    Attributes:
        host: "hub" or "cdn".
        target: path and query as they were sent, still quoted.
        headers: of the request, names in lower case.
        received: bytes of the request's body that were read.
        sent: bytes of the answer's body that were given to the socket.
        status: None until the answer's first line is sent, and for ever if none is.
        fault: the fault that was applied to it, as text.
    """

    host: str
    method: str
    target: str
    headers: Mapping[str, str]
    received: int = 0
    sent: int = 0
    status: int | None = None
    fault: str | None = None
    ended: bool = False

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def token(self) -> str | None:
        """What came in the Authorization header after `Bearer `."""
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None

    def __str__(self) -> str:
        span = f" [{self.headers['range']}]" if "range" in self.headers else ""
        return f"{self.host}: {self.method} {self.target}{span} -> {self.status}"


@dataclass(kw_only=True, slots=True)
class RequestLog:
    """All exchanges of a Hub and its CDN. Safe to read from any thread.

    Whoever reads waits until the answers under way are sent, so that the counts of a client that
    has returned are whole; an exchange that stalls is not waited for longer than `SETTLING`.
    """

    _exchanges: list[Exchange] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def begin(self, exchange: Exchange) -> None:
        """Notes a request whose headers have been read."""
        with self._changed:
            self._exchanges.append(exchange)

    def end(self, exchange: Exchange) -> None:
        """Notes that nothing more will be sent or received."""
        with self._changed:
            exchange.ended = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Forgets what there was, for a test in two parts."""
        with self._changed:
            self._settle()
            self._exchanges.clear()

    def select(
        self, *, host: str | None = None, method: str | None = None, target: str = ""
    ) -> list[Exchange]:
        """The exchanges with a host and a method whose target a regular expression is found in."""
        with self._changed:
            self._settle()
            return [
                exchange
                for exchange in self._exchanges
                if host in (None, exchange.host)
                and method in (None, exchange.method)
                and re.search(target, exchange.target)
            ]

    def sent(self, *, host: str | None = None, target: str = "") -> int:
        """Bytes of bodies that went to the client."""
        return sum(exchange.sent for exchange in self.select(host=host, target=target))

    def received(self, *, host: str | None = None, target: str = "") -> int:
        """Bytes of bodies that came from the client."""
        return sum(exchange.received for exchange in self.select(host=host, target=target))

    def __str__(self) -> str:
        return "\n".join(map(str, self.select()))

    def _settle(self) -> None:
        until = time.monotonic() + SETTLING
        while not all(exchange.ended for exchange in self._exchanges):
            if not self._changed.wait(until - time.monotonic()):
                break
