"""Requests to the Hub, sent again where that helps: after resets, stalls, 408, 429 and 5xx."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn, TypeVar
from urllib.parse import quote

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from tensorsurgeon import __version__
from tensorsurgeon.errors import HubError

TRIES = 5
"""How often a request is sent before its failure is an error."""

PAUSE = 0.5
"""Seconds before the second try; doubled for each other."""

LONGEST_PAUSE = 60.0
"""The longest wait a server can ask for, in seconds."""

CONNECTING = 5.0
"""Seconds in which a connection has to be made; the system tries three times meanwhile."""

_PASSING = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})

T = TypeVar("T")


def retried(
    request: Callable[[], T],
    *,
    gives_up: Callable[[Exception, int], bool] = lambda _error, _number: False,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Do a request, and again where the failure may pass; the last failure is raised.

    Args:
        request: what to do.
        gives_up: whether the `number`-th failure, counted from 0, is the last in any case.
        sleep: waits so many seconds.
    """
    _hush()
    for number in range(TRIES - 1):
        try:
            return request()
        except (httpx2.HTTPError, HfHubHTTPError) as error:
            if gives_up(error, number):
                raise
            pause = pause_after(error, number)
        sleep(pause)
    return request()


def pause_after(error: Exception, number: int) -> float:
    """Seconds to wait after the `number`-th failure in a row; raises those that do not pass."""
    pause = PAUSE * 2.0**number
    if isinstance(error, _PASSING):
        return pause
    if isinstance(error, HfHubHTTPError) and error.response.status_code in _AGAIN:
        return max(pause, _asked_pause(error.response))
    raise error


def _asked_pause(response: httpx2.Response) -> float:
    said = response.headers.get("Retry-After", "")
    return min(float(said), LONGEST_PAUSE) if re.fullmatch(r"\d{1,6}", said) else 0.0


def headers() -> dict[str, str]:
    """What every request says: who asks, and the user's token where there is one."""
    _hush()
    return build_hf_headers(library_name="tensorsurgeon", library_version=__version__)


def patience() -> httpx2.Timeout:
    """How long to wait without a byte, as the user has set it, and for a connection."""
    seconds = float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
    return httpx2.Timeout(seconds, connect=min(seconds, CONNECTING))


def _hush() -> None:
    """Show none of the client's warnings: they hold signed addresses. What matters is an error."""
    for handler in logging.getLogger("huggingface_hub").handlers:
        handler.setLevel(max(handler.level, logging.ERROR))


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some bytes of a file.

    Attributes:
        data: the bytes.
        etag: which content they are of, as the server names it.
    """

    data: bytes
    etag: str


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a file of a repository is.

    Attributes:
        url: its address at the Hub, or one that the Hub has signed for some minutes.
        is_signed: whether it is of the latter kind, to which the token must not go.
    """

    url: str
    is_signed: bool = False

    @classmethod
    def of(cls, repo: str, commit: str, name: str) -> "Address":
        """A file's address at the Hub."""
        return cls(url=f"{constants.ENDPOINT}/{repo}/resolve/{commit}/{quote(name)}")


@contextmanager
def part_of(address: Address, start: int, count: int, size: int) -> Iterator[httpx2.Response]:
    """The answer to a request for a range of a file, its body not read yet; its claims are checked.

    Args:
        address: where the file is.
        start: the first byte.
        count: how many bytes, at least one, none past the end.
        size: of the whole file.

    Raises:
        HubError: the server answers with something else than was asked for.
        HfHubHTTPError: it answers with an error.
        httpx2.HTTPError: the connection fails.
    """
    asked = range_headers(address, start, count)
    with get_session().stream("GET", address.url, headers=asked, timeout=patience()) as response:
        check_part(response, start, count, size)
        yield response


def range_headers(address: Address, start: int, count: int) -> dict[str, str]:
    """How a range is asked for; the token goes along where it may."""
    asked = {"Range": f"bytes={start}-{start + count - 1}", "Accept-Encoding": "identity"}
    return asked if address.is_signed else asked | headers()


def check_part(response: httpx2.Response, start: int, count: int, size: int) -> None:
    """Whether an answer is what was asked for; raises as `part_of`."""
    if response.status_code != 206:
        hf_raise_for_status(response)
        refuse(f"the server answers {response.status_code} where a part was asked for")
    said = response.headers.get("Content-Range", "")
    if said != f"bytes {start}-{start + count - 1}/{size}":
        refuse(f"the server sends another part than was asked for: '{said[:80]}'")
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced) > count:
        refuse("the server sends more than was asked for")


def read_part(repo: str, commit: str, name: str, start: int, count: int, size: int) -> Part:
    """Read a range of a file, in several tries if need be; raises as `part_of`."""

    def request() -> Part:
        address = Address.of(repo, commit, name)
        with part_of(address, start, count, size) as response:
            data = bytearray()
            for piece in response.iter_raw():
                data += piece
                if len(data) > count:
                    refuse("the server sends more than was asked for")
            if len(data) < count:
                raise httpx2.RemoteProtocolError(f"{len(data)} of {count} bytes")
            return Part(data=bytes(data), etag=response.headers.get("ETag", ""))

    return retried(request)


def refuse(what: str) -> NoReturn:
    """Raise what a server must not answer."""
    raise HubError(what, fix="check HF_ENDPOINT and the proxy")
