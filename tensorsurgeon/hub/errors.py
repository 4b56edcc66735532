"""What the Hub and the network answer, in the words of this program, with what to do.

Messages are made of names and numbers alone: the client's own texts hold addresses, whose
signatures are as good as a token.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tensorsurgeon.errors import HubError, printable

_LOGIN = "log in with 'hf auth login', or set HF_TOKEN"


@contextmanager
def explained(repo: str, *, revision: str = "", file: str = "") -> Iterator[None]:
    """Errors of the client and of the network, as errors of ours.

    Args:
        repo: which repository it is about.
        revision: which of its revisions.
        file: which file.
    """
    try:
        yield
    except (
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        LocalEntryNotFoundError,
        FileMetadataError,
        httpx2.HTTPError,
        httpx2.InvalidURL,
    ) as error:
        place = f"{repo}@{revision}" if revision else repo
        what, fix = _told(error, repo, revision)
        raise HubError(what, where=f"{place}/{file}" if file else place, fix=fix) from None


def _told(error: Exception, repo: str, revision: str) -> tuple[str, str]:
    endpoint = shown_endpoint()
    if isinstance(error, HFValidationError):
        return "is no name of a repository", "a name is like org/name, or org/name@revision"
    if isinstance(error, GatedRepoError):
        ask = f"ask for access at {endpoint}/{repo}, then {_LOGIN}"
        return "is gated: its owners give access on request", ask
    if isinstance(error, RepositoryNotFoundError):
        fix = f"check the name; if it is private, {_LOGIN}"
        return f"there is no such model repository at {endpoint}, or it is private", fix
    if isinstance(error, RevisionNotFoundError):
        return f"has no revision '{printable(revision)}'", "name a branch, a tag or a commit of it"
    if isinstance(error, RemoteEntryNotFoundError):
        return "is not in the repository", ""
    if isinstance(error, HfHubHTTPError):
        return _told_status(error.response)
    if isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError):
        return _told_absent(endpoint)
    if isinstance(error, FileMetadataError):
        return f"{endpoint} does not answer like a Hub", "check HF_ENDPOINT and the proxy"
    if isinstance(error, httpx2.TimeoutException):
        return f"{endpoint} does not answer in time", "run again; what is here is not fetched again"
    kind = type(error).__name__
    return f"the connection to {endpoint} failed ({kind})", "check the network, then run again"


def lacking_error(where: str, names: Sequence[str], lost: str) -> HubError:
    """The error that files are not here and cannot be fetched.

    Args:
        where: the repository.
        names: the files.
        lost: why.
    """
    fix = "check the network, then run again"
    if constants.is_offline_mode():
        fix = "fetch it once with 'hf download', or without HF_HUB_OFFLINE"
    if len(names) == 1:
        return HubError(f"is not in the cache, and {lost}", where=f"{where}/{names[0]}", fix=fix)
    few = ", ".join(sorted(names)[:8]) + (", …" if len(names) > 8 else "")
    return HubError(
        f"{len(names)} files are not in the cache, and {lost}: {few}", where=where, fix=fix
    )


def shown_endpoint() -> str:
    """The Hub's address without what may be secret in it."""
    try:
        parts = urlsplit(constants.ENDPOINT)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "HF_ENDPOINT"
    return printable(f"{parts.scheme}://{parts.hostname}{port}")


def _told_absent(endpoint: str) -> tuple[str, str]:
    if constants.is_offline_mode():
        return "is not in the cache, and HF_HUB_OFFLINE is set", "fetch it once with 'hf download'"
    return f"is not in the cache, and {endpoint} cannot be reached", "check the network"


def _told_status(response: httpx2.Response) -> tuple[str, str]:
    """The Hub, or the host that it has sent us to, answers with an error."""
    status, who = response.status_code, shown_endpoint()
    url, hub = response.request.url, httpx2.URL(constants.ENDPOINT)
    is_hub = url.netloc == hub.netloc
    if not is_hub:
        who = printable(f"{url.host}, where the Hub keeps files,")
    if status == 416:
        return "is shorter than its repository says (416)", "run again; if it stays, tell its owner"
    if status == 429:
        return f"{who} asks to wait (429)", f"wait a few minutes; {_LOGIN} for higher limits"
    if status in (401, 403) and not is_hub:
        fix = "run again, for a new address; if it stays, look at proxy and firewall"
        return f"{who} does not take the address that the Hub has signed ({status})", fix
    if status == 401:
        return f"{who} does not accept the token", _LOGIN
    if status == 403:
        return f"{who} does not allow it (403)", f"{_LOGIN} as somebody who may"
    return f"{who} answers {status}", "run again in a few minutes"
