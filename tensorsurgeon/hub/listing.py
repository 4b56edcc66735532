"""What a repository holds at a revision: asked of the Hub, and kept for when it cannot be asked."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import get_session, hf_raise_for_status

from tensorsurgeon.checkpoint import RemoteFile
from tensorsurgeon.checkpoint.strict_json import StrictJSONError, parse_object
from tensorsurgeon.errors import HubError
from tensorsurgeon.hub.cache import COMMIT, RepoFolder
from tensorsurgeon.hub.errors import shown_endpoint
from tensorsurgeon.hub.requests import headers, patience, refuse, retried

ANSWER_LIMIT = 100_000_000
"""Longest answer of the Hub, in bytes; a repository of 100,000 files has one of 30 MB."""

KEPT_LIMIT = 2_000_000
"""Longest listing kept, in bytes; one of 10,000 files takes as much."""


class UnreachableError(Exception):
    """There is no way to the Hub now."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files at the top of a repository, by name, at a commit."""

    commit: str
    files: Mapping[str, RemoteFile]


def ask(name: str, revision: str) -> Listing:
    """What a repository holds now.

    Args:
        name: `org/name`.
        revision: a branch, a tag or a commit.

    Raises:
        UnreachableError: there is no way to the Hub, which is known after a few seconds.
        HfHubHTTPError: it answers with an error.
        HubError: it does not answer as a Hub does.
    """
    try:
        answer = json.loads(retried(lambda: _answer(name, revision), gives_up=_is_lost))
        commit = answer["sha"]
        if not COMMIT.fullmatch(commit):
            raise ValueError(commit)
        return Listing(commit=commit, files=dict(_listed(answer["siblings"])))
    except httpx2.TransportError:
        raise UnreachableError from None
    except HfHubHTTPError:  # some are ValueErrors as well
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise HubError(
            f"{shown_endpoint()} does not answer like a Hub",
            where=f"{name}@{revision}",
            fix="check HF_ENDPOINT and the proxy",
        ) from None


def keep(folder: RepoFolder, listing: Listing) -> None:
    """Keep a listing, unless it is kept already or very long."""
    if kept(folder, listing.commit) == listing.files:
        return
    files = {
        name: {"bytes": file.nbytes, "sha256": file.sha256, "git": file.git}
        for name, file in sorted(listing.files.items())
    }
    data = json.dumps({"files": files}, indent=0).encode()
    if len(data) <= KEPT_LIMIT:
        folder.keep("listings", listing.commit, data=data)


def kept(folder: RepoFolder, commit: str) -> dict[str, RemoteFile] | None:
    """A listing that was kept; None where there is none that makes sense."""
    data = folder.read("listings", commit, limit=KEPT_LIMIT)
    if data is None:
        return None
    try:
        files = parse_object(data, levels=3)["files"]
        return {
            name: _file(name, said["bytes"], said["sha256"], said["git"])
            for name, said in files.items()
        }
    except (StrictJSONError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_plain(name: str) -> bool:
    """Whether a file lies at the top of its repository, under a name that is safe everywhere."""
    return name.isprintable() and not {"/", "\\"} & set(name) and name not in ("", ".", "..")


def _answer(name: str, revision: str) -> bytes:
    place = f"{constants.ENDPOINT}/api/models/{name}/revision/{quote(revision, safe='')}"
    address = f"{place}?blobs=true"
    said = headers()
    with get_session().stream("GET", address, headers=said, timeout=patience()) as response:
        hf_raise_for_status(response)
        data = bytearray()
        for piece in response.iter_bytes():
            data += piece
            if len(data) > ANSWER_LIMIT:
                refuse(f"the list of its files is longer than {ANSWER_LIMIT} bytes")
    return bytes(data)


def _is_lost(error: Exception, number: int) -> bool:
    """Whether to take it that there is no way; what the cache has may do then.

    While a connection is being made, the system itself tries again.
    """
    once_more = httpx2.ConnectError | httpx2.TimeoutException
    return isinstance(error, httpx2.ConnectTimeout) or (number > 0 and isinstance(error, once_more))


def _listed(siblings: list[dict[str, Any]]) -> Iterator[tuple[str, RemoteFile]]:
    """The files at the top of a repository, as it lists them."""
    for sibling in siblings:
        name, size, large = sibling["rfilename"], sibling.get("size"), sibling.get("lfs")
        if size is None or not is_plain(name):
            continue
        sha256 = large["sha256"] if large else None
        yield name, _file(name, size, sha256, None if sha256 else sibling.get("blobId"))


def _file(name: str, nbytes: int, sha256: str | None, git: str | None) -> RemoteFile:
    """A file of a listing; raises ValueError or TypeError where that cannot be."""
    if type(nbytes) is not int or nbytes < 0 or not is_plain(name):
        raise ValueError(name)
    for digest, length in ((sha256, 64), (git, 40)):
        if digest is not None and not re.fullmatch(f"[0-9a-f]{{{length}}}", digest):
            raise ValueError(digest)
    return RemoteFile(nbytes=nbytes, sha256=sha256, git=git)
