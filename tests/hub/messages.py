"""Requests as handlers see them, and answers as they leave them to be delivered."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, unquote

from tests.hub.content import Content
from tests.hub.state import Refusal

NOTHING = Content.of(b"")


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """How an answer is sent. Positions count the bytes of its body.

    Attributes:
        lost: not even the first line is sent, and the connection is closed.
        cut: where the body ends early and the connection is closed.
        reset: whether the connection is then reset and not closed.
        wait: seconds before the first line.
        stall: where, and for how many seconds, nothing is sent.
        flip: the byte whose lowest bit is flipped.
        rate: bytes per second at most.
    """

    lost: bool = False
    cut: int | None = None
    reset: bool = False
    wait: float = 0.0
    stall: tuple[int, float] | None = None
    flip: int | None = None
    rate: float | None = None


PROMPT = Delivery()


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """An answer; its body is `length` bytes of a content from `start` on."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    content: Content = NOTHING
    start: int = 0
    length: int = 0
    delivery: Delivery = PROMPT


@dataclass(kw_only=True, slots=True, eq=False)
class Request:
    """A request; faults may change how it is understood before a handler sees it.

    Attributes:
        url: scheme, address and port of the host that was asked.
        target: path and query, still quoted.
        headers: names in lower case.
        pieces: reads the body, piece by piece, once.
        values: what the route found in the path, unquoted.
        ignore_range: whether the host acts as if it knew no ranges.
        etag: what the host takes for the ETag of whatever it serves, without the quotes.
    """

    host: str
    url: str
    method: str
    target: str
    headers: Mapping[str, str]
    pieces: Callable[[], Iterator[bytes]]
    values: Mapping[str, str] = field(default_factory=dict)
    ignore_range: bool = False
    etag: str | None = None

    @property
    def path(self) -> str:
        """The target without its query, still quoted."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """The last value of each parameter."""
        return {name: found[-1] for name, found in self.lists.items()}

    @property
    def lists(self) -> dict[str, list[str]]:
        """Every value of each parameter."""
        return parse_qs(self.target.partition("?")[2], keep_blank_values=True)

    def flag(self, name: str) -> bool:
        """Whether a parameter says yes."""
        return self.query.get(name, "").lower() in ("1", "true")

    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.pieces())

    def json(self) -> Any:
        """The body, which must be JSON."""
        try:
            return json.loads(self.body() or b"null")
        except ValueError:
            raise Refusal(400, None, "the body is no JSON") from None


def reply(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer in JSON."""
    content = Content.of(json.dumps(value))
    typed = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    return Response(status=status, headers=typed, content=content, length=content.size)


def refuse(refusal: Refusal) -> Response:
    """An answer that says why not, in the headers that the client reads and in the body."""
    headers = {"X-Error-Message": refusal.message}
    if refusal.code is not None:
        headers["X-Error-Code"] = refusal.code
    if refusal.commit is not None:
        headers["X-Repo-Commit"] = refusal.commit
    return reply({"error": refusal.message}, status=refusal.status, headers=headers)


def serve(request: Request, content: Content, etag: str, headers: Mapping[str, str]) -> Response:
    """A file, whole or in part, as RFC 9110 has it for If-Match, If-None-Match and If-Range.

    More than one range in a request is answered with the whole file.
    """
    quoted = f'"{request.etag or etag}"'
    common = {"ETag": quoted, "Accept-Ranges": "bytes", **headers}
    if not matches(request.headers.get("if-match"), quoted):
        return Response(status=412, headers=common)
    asked = request.headers.get("if-none-match")
    if asked is not None and matches(asked, quoted):
        return Response(status=304, headers=common)
    span = None
    if not request.ignore_range and request.headers.get("if-range", quoted) == quoted:
        span = wanted(request.headers.get("range", ""), content.size)
    if span is None:
        return Response(headers=common, content=content, length=content.size)
    start, stop = span
    if start >= stop:
        return Response(status=416, headers=common | {"Content-Range": f"bytes */{content.size}"})
    common["Content-Range"] = f"bytes {start}-{stop - 1}/{content.size}"
    return Response(status=206, headers=common, content=content, start=start, length=stop - start)


def matches(condition: str | None, quoted: str) -> bool:
    """Whether a list of ETags, if there is one, has this one."""
    if condition is None:
        return True
    return condition.strip() == "*" or quoted in [tag.strip() for tag in condition.split(",")]


def wanted(header: str, size: int) -> tuple[int, int] | None:
    """First byte and the byte behind the last of a Range header; None if it names no single one.

    What lies outside of the file comes back as an empty span.
    """
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size


Handler = Callable[[Request], Response]


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """Which handler answers which requests; the named groups of the pattern are its values."""

    method: str
    pattern: re.Pattern[str]
    handler: Handler


def route(method: str, pattern: str, handler: Handler) -> Route:
    """A route whose pattern may say `{repo}`, `{revision}` and, at its end, `{path}`."""
    groups = {
        "{repo}": r"(?P<repo>[^/]+(?:/[^/]+)?)",
        "{revision}": r"(?P<revision>[^/]+)",
        "{path}": r"(?P<path>.+)",
    }
    for name, group in groups.items():
        pattern = pattern.replace(name, group)
    return Route(method=method, pattern=re.compile(pattern), handler=handler)


def dispatch(routes: tuple[Route, ...], request: Request) -> Response:
    """The answer of the first route that fits; HEAD is answered as GET."""
    method = "GET" if request.method == "HEAD" else request.method
    try:
        for candidate in routes:
            found = candidate.pattern.fullmatch(request.path)
            if found and candidate.method == method:
                values = {name: unquote(value or "") for name, value in found.groupdict().items()}
                request.values = values
                return candidate.handler(request)
    except Refusal as refusal:
        return refuse(refusal)
    return refuse(Refusal(404, None, "Sorry, we can't find the page you are looking for."))
