"""What may go wrong between a client and the Hub, and rules for which requests it befalls."""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from tests.hub.content import Content
from tests.hub.messages import Delivery, Request, Response, refuse
from tests.hub.state import Refusal


class Fault:
    """Something that goes wrong with one request. The base does nothing."""

    def before(self, request: Request) -> Response | None:
        """Changes how the request is understood, or answers it before any handler sees it."""
        return None

    def after(self, response: Response) -> Response:
        """Changes the handler's answer or how it is sent."""
        return response


@dataclass(frozen=True, slots=True)
class Fail(Fault):
    """An error in place of the answer; nothing is done on the Hub.

    Args:
        code: as X-Error-Code.
        retry_after: seconds, or an HTTP date.
    """

    status: int
    code: str | None = None
    message: str = "Something went wrong"
    retry_after: int | str | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def before(self, request: Request) -> Response:
        response = refuse(Refusal(self.status, self.code, self.message))
        more = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return replace(response, headers={**response.headers, **more, **self.headers})


@dataclass(frozen=True, slots=True)
class Answer(Fault):
    """Something else than a Hub says, and no error: a page to log in to a network."""

    body: bytes

    def before(self, request: Request) -> Response:
        content = Content.of(self.body)
        return Response(content=content, length=len(self.body))


@dataclass(frozen=True, slots=True)
class Redirect(Fault):
    """Sends the client to another address; nothing is done on the Hub."""

    location: str
    status: int = 302

    def before(self, request: Request) -> Response:
        return Response(status=self.status, headers={"Location": self.location})


@dataclass(frozen=True, slots=True)
class Cut(Fault):
    """The body ends after some bytes and the connection is closed."""

    after_bytes: int

    def after(self, response: Response) -> Response:
        return deliver(response, Delivery(cut=self.after_bytes))


@dataclass(frozen=True, slots=True)
class Reset(Fault):
    """The connection is reset after some bytes of the body, not all of which may arrive.

    Without a number nothing is sent, and nothing is done on the Hub.
    """

    after_bytes: int | None = None

    def before(self, request: Request) -> Response | None:
        if self.after_bytes is not None:
            return None
        return Response(delivery=Delivery(lost=True, reset=True))

    def after(self, response: Response) -> Response:
        return deliver(response, Delivery(cut=self.after_bytes, reset=True))


@dataclass(frozen=True, slots=True)
class ResetUpload(Fault):
    """The connection is reset as soon as so many bytes of the request's body have been read."""

    after_bytes: int

    def before(self, request: Request) -> Response:
        read = 0
        for piece in request.pieces():
            read += len(piece)
            if read >= self.after_bytes:
                break
        return Response(delivery=Delivery(lost=True, reset=True))


@dataclass(frozen=True, slots=True)
class LoseReply(Fault):
    """All is done as asked, but the connection is closed before the first line of the answer."""

    reset: bool = False

    def after(self, response: Response) -> Response:
        return deliver(response, Delivery(lost=True, reset=self.reset))


@dataclass(frozen=True, slots=True)
class Stall(Fault):
    """Nothing is sent for some seconds; then all goes on.

    Args:
        after_bytes: of the body; without it not even the first line is sent before.
    """

    seconds: float
    after_bytes: int | None = None

    def after(self, response: Response) -> Response:
        if self.after_bytes is None:
            return deliver(response, Delivery(wait=self.seconds))
        return deliver(response, Delivery(stall=(self.after_bytes, self.seconds)))


@dataclass(frozen=True, slots=True)
class Slow(Fault):
    """The body is sent at so many bytes per second."""

    rate: float

    def after(self, response: Response) -> Response:
        return deliver(response, Delivery(rate=self.rate))


@dataclass(frozen=True, slots=True)
class FlipBit(Fault):
    """The lowest bit of a byte of the body is flipped; a negative place counts from the end."""

    at: int = 0

    def after(self, response: Response) -> Response:
        if not response.length:
            return response
        return deliver(response, Delivery(flip=self.at % response.length))


@dataclass(frozen=True, slots=True)
class IgnoreRange(Fault):
    """A range is answered with the whole file and 200."""

    def before(self, request: Request) -> None:
        request.ignore_range = True


@dataclass(frozen=True, slots=True)
class WrongContentRange(Fault):
    """A range is answered with the right bytes under a Content-Range of others.

    Args:
        value: the header; without it, the span that begins and ends one byte later; if empty, there
            is no such header.
    """

    value: str | None = None

    def after(self, response: Response) -> Response:
        headers = dict(response.headers)
        if response.status == 206:
            start, stop = response.start + 1, response.start + response.length
            headers["Content-Range"] = f"bytes {start}-{stop}/{response.content.size + 1}"
        if self.value is not None:
            headers["Content-Range"] = self.value
        if not headers.get("Content-Range"):
            headers.pop("Content-Range", None)
        return replace(response, headers=headers)


@dataclass(frozen=True, slots=True)
class ChangeETag(Fault):
    """The file seems to be another: its ETag changes, and conditions are judged by the new one."""

    etag: str = "0" * 64

    def before(self, request: Request) -> None:
        request.etag = self.etag


@dataclass(frozen=True, slots=True)
class Meanwhile(Fault):
    """Something happens on the Hub just before the request is looked at, a commit for instance."""

    action: Callable[[], object]

    def before(self, request: Request) -> None:
        self.action()


def deliver(response: Response, delivery: Delivery) -> Response:
    """The same answer sent in another way."""
    return replace(response, delivery=delivery)


@dataclass(kw_only=True, slots=True, eq=False)
class Rule:
    """A fault and the requests it befalls.

    Attributes:
        skip: how many of those requests go well first.
        times: how many it then befalls; None for all.
        hits: how many it has befallen.
    """

    fault: Fault
    host: str | None
    method: str | None
    target: re.Pattern[str]
    when: Callable[[Request], bool]
    skip: int
    times: int | None
    seen: int = 0
    hits: int = 0

    def fits(self, request: Request) -> bool:
        """Whether the rule is about this request."""
        named = self.host in (None, request.host) and self.method in (None, request.method)
        return named and bool(self.target.search(request.target)) and self.when(request)

    @property
    def spent(self) -> bool:
        """Whether the rule will befall no more requests."""
        return self.times is not None and self.hits >= self.times


@dataclass(kw_only=True, slots=True)
class Faults:
    """The rules of a Hub and its CDN; each request meets at most one fault.

    Rules are asked in the order in which they were added; the first that fits, is not spent and
    skips no more wins. Two 503 and then a stall are two rules.
    """

    _rules: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(
        self,
        fault: Fault,
        target: str = "",
        *,
        host: str | None = None,
        method: str | None = None,
        when: Callable[[Request], bool] = lambda _: True,
        skip: int = 0,
        times: int | None = 1,
    ) -> Rule:
        """Adds a rule.

        Args:
            target: a regular expression found in path and query as sent, quoted. What the CDN
                serves has the file's name in the query.
            host: "hub" or "cdn".
            when: a condition of any other kind, on the headers for instance.
            skip: how many of those requests go well first.
            times: how many it then befalls; None for all.
        """
        rule = Rule(
            fault=fault,
            host=host,
            method=method,
            target=re.compile(target),
            when=when,
            skip=skip,
            times=times,
        )
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Forgets all rules: from now on all goes well."""
        with self._lock:
            self._rules.clear()

    def take(self, request: Request) -> Fault | None:
        """The fault that befalls a request, which counts."""
        with self._lock:
            for rule in self._rules:
                if rule.spent or not rule.fits(request):
                    continue
                rule.seen += 1
                if rule.seen > rule.skip:
                    rule.hits += 1
                    return rule.fault
        return None
