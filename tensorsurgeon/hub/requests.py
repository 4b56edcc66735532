"""Requests to the Hub, sent again where that helps: after resets, stalls, 408, 429 and 5xx."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
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

TIMEOUT = 20.0
"""Seconds without a byte until a connection is given up."""

_AGAIN = frozenset({408, 429, 500, 502, 503, 504})

T = TypeVar("T")


def retried(request: Callable[[], T], *, sleep: Callable[[float], None] = time.sleep) -> T:
    """Do a request, and again where the failure may pass; the last failure is raised."""
    for number in range(TRIES - 1):
        try:
            return request()
        except (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError):
            pause = PAUSE * 2**number
        except HfHubHTTPError as error:
            if error.response.status_code not in _AGAIN:
                raise
            pause = max(PAUSE * 2**number, _asked_pause(error.response))
        sleep(pause)
    return request()


def _asked_pause(response: httpx2.Response) -> float:
    said = response.headers.get("Retry-After", "")
    return min(float(said), LONGEST_PAUSE) if re.fullmatch(r"\d{1,6}", said) else 0.0


def headers() -> dict[str, str]:
    """What every request says: who asks, and the user's token where there is one."""
    return build_hf_headers(library_name="tensorsurgeon", library_version=__version__)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some bytes of a file.

    Attributes:
        data: the bytes.
        etag: which content they are of, as the server names it.
    """

    data: bytes
    etag: str


def read_part(repo: str, commit: str, name: str, start: int, count: int, size: int) -> Part:
    """Read a range of a file; every claim of the answer is checked.

    Args:
        repo: `org/name`.
        commit: which commit of it.
        name: the file's name.
        start: its first byte.
        count: how many bytes, at least one, none past the end.
        size: of the whole file.

    Raises:
        HubError: the server answers with something else than was asked for.
        HfHubHTTPError: it answers with an error.
        httpx2.HTTPError: the connection fails.
    """
    url = f"{constants.ENDPOINT}/{repo}/resolve/{commit}/{quote(name)}"
    asked = headers() | {
        "Range": f"bytes={start}-{start + count - 1}",
        "Accept-Encoding": "identity",
    }

    def request() -> Part:
        with get_session().stream("GET", url, headers=asked, timeout=TIMEOUT) as response:
            if response.status_code != 206:
                hf_raise_for_status(response)
                _refuse(f"the server answers {response.status_code} where a part was asked for")
            said = response.headers.get("Content-Range", "")
            if said != f"bytes {start}-{start + count - 1}/{size}":
                _refuse(f"the server sends another part than was asked for: '{said[:80]}'")
            data = bytearray()
            for piece in response.iter_raw():
                data += piece
                if len(data) > count:
                    _refuse("the server sends more than was asked for")
            if len(data) < count:
                raise httpx2.RemoteProtocolError(f"{len(data)} of {count} bytes")
            return Part(data=bytes(data), etag=response.headers.get("ETag", ""))

    return retried(request)


def _refuse(what: str) -> None:
    raise HubError(what, fix="check HF_ENDPOINT and the proxy")
