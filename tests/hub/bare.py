"""A bare HTTP client, and what it asks for."""

import http.client
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

WEIGHTS = os.urandom(3_000_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back; the body is as much as came of it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool


class Caller:
    """One connection to one host, kept open between requests."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)

    def __call__(self, method: str, url: str, body: bytes | None = None, **headers: str) -> Answer:
        """Headers are given with underscores."""
        parts = urlsplit(url)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, f"{parts.path}?{parts.query}", body, named)
        response = self.connection.getresponse()
        try:
            content, whole = response.read(), True
        except http.client.IncompleteRead as error:
            content, whole = error.partial, False
            self.connection.close()
        return Answer(
            status=response.status, headers=dict(response.headers), body=content, whole=whole
        )


def commit_body(**header: str) -> bytes:
    """A commit of one small file."""
    file = {"path": "new.txt", "content": "bmV3", "encoding": "base64"}
    items = [{"key": "header", "value": {"summary": "x"} | header}, {"key": "file", "value": file}]
    return b"\n".join(json.dumps(item).encode() for item in items)
