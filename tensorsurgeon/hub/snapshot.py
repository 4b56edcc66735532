"""A repository opened for planning: its commit, its config and index, and its shards' headers.

What is small comes through the ordinary cache, as `hf download` would put it there; of shards that
are not in the cache, only the headers are read, and stored nowhere.
"""

import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import validate_repo_id

from tensorsurgeon import __version__
from tensorsurgeon.checkpoint import (
    CONFIG_LIMIT,
    INDEX_LIMIT,
    INDEX_NAME,
    Checkpoint,
    RemoteFile,
    Repo,
    open_checkpoint,
)
from tensorsurgeon.checkpoint.header import HEADER_LIMIT
from tensorsurgeon.errors import CheckpointError, HubError, printable
from tensorsurgeon.hub.errors import explained, shown_endpoint
from tensorsurgeon.hub.meter import meter
from tensorsurgeon.hub.requests import read_part, retried
from tensorsurgeon.hub.threads import in_threads

CONFIG = "config.json"

START = 8192
"""Bytes read at first of a shard: most headers are shorter."""

CONNECTIONS = 8
"""Headers on their way at a time."""


def open_repo(name: str) -> Checkpoint:
    """Open `org/name`, `org/name@revision` or `hf://…` for planning.

    The revision is resolved to a commit once, by fetching the config; all else is of that commit.

    Raises:
        CheckpointError: no such repository, no access, no network, or no sound checkpoint in it.
    """
    asked, _, revision = name.removeprefix("hf://").partition("@")
    with explained(asked, revision=revision):
        validate_repo_id(asked)
    revision = revision or constants.DEFAULT_REVISION
    folder = download(asked, CONFIG, revision).parent
    with _named(folder, f"{asked}@{revision}"):
        return _open(asked, revision, folder)


@contextmanager
def _named(folder: Path, name: str) -> Iterator[None]:
    """Errors that name the repository, not its folder in the cache."""
    try:
        yield
    except CheckpointError as error:
        error.problems = tuple(
            replace(problem, where=problem.where.replace(str(folder), name))
            for problem in error.problems
        )
        raise


def _open(asked: str, revision: str, folder: Path) -> Checkpoint:
    if constants.is_offline_mode():
        return open_checkpoint(folder, _cached(asked, revision, folder))
    try:
        with explained(asked, revision=revision):
            repo = _describe(asked, revision, folder.name)
    except _UnreachableError:
        found = open_checkpoint(folder, _cached(asked, revision, folder))
        note = f"{shown_endpoint()} cannot be reached: {asked}@{revision} is as the cache has it"
        return replace(found, notes=(*found.notes, printable(note)))
    limits = dict.fromkeys((n for n in repo.files if n.endswith(CONFIG)), CONFIG_LIMIT)
    if INDEX_NAME in repo.files:
        limits[INDEX_NAME] = INDEX_LIMIT
    for small, limit in limits.items():
        if repo.files[small].nbytes > limit:
            raise CheckpointError(f"is larger than {limit} bytes", where=f"{repo}/{small}")
        download(asked, small, repo.commit, label=revision)
    return open_checkpoint(folder, repo)


def download(
    repo: str,
    file: str,
    revision: str,
    *,
    label: str = "",
    advance: Callable[[int], None] = lambda _nbytes: None,
) -> Path:
    """A file of a repository in the cache, fetched if need be.

    Args:
        repo: `org/name`.
        file: the file's name.
        revision: branch, tag or commit.
        label: what to call the revision in errors.
        advance: told the number of bytes whenever some have come; may raise to stop.

    Raises:
        CheckpointError: it cannot be fetched, or not be stored.
    """
    label = label or revision
    with _stored(f"{repo}@{label}/{file}"), explained(repo, revision=label, file=file):
        return Path(
            retried(
                lambda: hf_hub_download(
                    repo,
                    file,
                    revision=revision,
                    library_name="tensorsurgeon",
                    library_version=__version__,
                    tqdm_class=meter(advance),
                )
            )
        )


class _UnreachableError(Exception):
    """There is no way to the Hub now."""


@contextmanager
def _stored(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None:  # the client has counted the bytes
            what, fix = "has come incomplete", "run again"
        else:
            what = f"cannot be put into the cache: {error.strerror}"
            fix = "make room there, or choose another place with HF_HOME"
        raise HubError(what, where=where, fix=fix) from None


def _cached(name: str, revision: str, folder: Path) -> Repo:
    """What the cache has of a repository; it keeps large files under their digests."""
    files = {}
    for path in folder.iterdir():
        if not path.is_file() or not _is_plain(path.name):
            continue
        blob = Path(os.readlink(path)).name if path.is_symlink() else ""
        files[path.name] = RemoteFile(
            nbytes=path.stat().st_size,
            sha256=blob if re.fullmatch("[0-9a-f]{64}", blob) else None,
            git=blob if re.fullmatch("[0-9a-f]{40}", blob) else None,
        )
    return Repo(name=name, revision=revision, commit=folder.name, files=files)


def _describe(name: str, revision: str, commit: str) -> Repo:
    """What a repository holds at a commit, with sizes and digests."""
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise CheckpointError("is of no commit in the cache", where=f"{name}@{revision}")
    api = HfApi(library_name="tensorsurgeon", library_version=__version__)
    try:
        info = retried(
            lambda: api.model_info(
                name,
                revision=commit,
                files_metadata=True,
                timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            )
        )
        files = dict(_listed(info.siblings or ()))
    except httpx2.TransportError:
        raise _UnreachableError from None
    except HfHubHTTPError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):
        raise HubError(
            f"{shown_endpoint()} does not answer like a Hub",
            where=f"{name}@{revision}",
            fix="check HF_ENDPOINT and the proxy",
        ) from None

    repo = Repo(name=name, revision=revision, commit=commit, files=files)
    return replace(repo, starts=lambda names: in_threads(partial(_start, repo), names, CONNECTIONS))


def _listed(siblings: Iterable[RepoSibling]) -> Iterator[tuple[str, RemoteFile]]:
    """The files at the top of a repository, as it lists them."""
    for sibling in siblings:
        size, sha256 = sibling.size, sibling.lfs.sha256 if sibling.lfs else None
        if size is None or not _is_plain(sibling.rfilename):
            continue
        if type(size) is not int or size < 0:
            raise ValueError(size)
        if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
            raise ValueError(sha256)
        git = None if sha256 else sibling.blob_id
        yield sibling.rfilename, RemoteFile(nbytes=size, sha256=sha256, git=git)


def _is_plain(name: str) -> bool:
    """Whether a file lies at the top of its repository, under a name that is safe everywhere."""
    return name.isprintable() and not {"/", "\\"} & set(name) and name not in ("", ".", "..")


def _start(repo: Repo, file: str) -> bytes:
    """The header of a shard with its length before it."""
    size = repo.files[file].nbytes
    if not size:
        return b""
    with explained(repo.name, revision=repo.revision, file=file):
        first = read_part(repo.name, repo.commit, file, 0, min(START, size), size)
        if len(first.data) < 8:
            return first.data
        end = 8 + int(struct.unpack_from("<Q", first.data)[0])
        if end <= len(first.data) or end > min(size, 8 + HEADER_LIMIT):
            return first.data[:end]  # what is too long for a header is refused by its reader
        begin = len(first.data)
        rest = read_part(repo.name, repo.commit, file, begin, end - begin, size)
    if rest.etag != first.etag:
        raise CheckpointError("has changed while it was read", where=f"{repo}/{file}")
    return first.data + rest.data
