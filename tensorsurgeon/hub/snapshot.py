"""Repositories opened for planning: commits, configs and indexes, and the headers of shards.

What is small comes through the ordinary cache, as `hf download` would put it there; of shards that
are not in the cache, only the headers are read. Where there is no way to the Hub, what the cache
has and what is kept of earlier answers is enough, or what is lacking is told.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.utils import validate_repo_id

from tensorsurgeon import __version__
from tensorsurgeon.checkpoint import (
    ADAPTER_CONFIG,
    CARD_NAME,
    CONFIG_LIMIT,
    INDEX_LIMIT,
    INDEX_NAME,
    Checkpoint,
    RemoteFile,
    Repo,
    open_adapter,
    open_checkpoint,
)
from tensorsurgeon.checkpoint.adapter_config import APPLY_IT
from tensorsurgeon.checkpoint.license import CARD_LIMIT
from tensorsurgeon.checkpoint.listing import CONFIG_NAME, kind_of
from tensorsurgeon.errors import (
    CheckpointError,
    HubError,
    MissingTensorError,
    TensorSurgeonError,
    printable,
)
from tensorsurgeon.hub.cache import RepoFolder
from tensorsurgeon.hub.errors import explained, lacking_error, shown_endpoint
from tensorsurgeon.hub.headers import read_starts
from tensorsurgeon.hub.listing import Listing, UnreachableError, ask, is_plain, keep, kept
from tensorsurgeon.hub.meter import meter
from tensorsurgeon.hub.requests import retried
from tensorsurgeon.hub.signing_in import has_token
from tensorsurgeon.hub.threads import in_threads

REPOS = 4
"""Repositories opened at a time."""


Kind = Literal["models", "adapters"]


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """Which repository, which of its revisions, and what; two spellings of the same are equal."""

    name: str
    revision: str
    kind: Kind

    @property
    def config_name(self) -> str:
        """The file that says what it is."""
        return CONFIG_NAME if self.kind == "models" else ADAPTER_CONFIG

    @classmethod
    def of(cls, spelling: str, kind: Kind) -> "_Asked":
        name, at, revision = spelling.removeprefix("hf://").partition("@")
        with explained(name, revision=revision):
            validate_repo_id(name)
        if at and not revision:
            raise HubError(
                "names no revision after the '@'",
                where=spelling,
                fix=f"write {name}, or {name}@{constants.DEFAULT_REVISION}",
            )
        return cls(name=name, revision=revision or constants.DEFAULT_REVISION, kind=kind)

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}"


def open_repos(
    names: Sequence[str], kind: Kind = "models"
) -> dict[str, Checkpoint | TensorSurgeonError]:
    """Open several for planning, at the same time.

    Each revision is resolved to a commit once, however often and in whatever spelling it is named;
    all else is of that commit.

    Args:
        names: `org/name`, `org/name@revision` or `hf://…`.
        kind: what they are repositories of.

    Returns:
        Each one's checkpoint; or why there is none: no such repository, no access, no network, or
        no sound checkpoint in it.
    """
    asked: dict[str, _Asked] = {}
    found: dict[str, Checkpoint | TensorSurgeonError] = {}
    for name in names:
        try:
            asked[name] = _Asked.of(name, kind)
        except HubError as error:
            found[name] = error
    opened = in_threads(_tried, list(dict.fromkeys(asked.values())), REPOS)
    revisions: dict[Path, dict[str, None]] = {}
    for each in dict.fromkeys(asked.values()):
        if isinstance(checkpoint := opened[each], Checkpoint):
            revisions.setdefault(checkpoint.path, {})[each.revision] = None
    for name, each in asked.items():
        found[name] = opened[each]
        if isinstance(checkpoint := opened[each], Checkpoint) and checkpoint.repo is not None:
            repo = replace(checkpoint.repo, revision=", ".join(revisions[checkpoint.path]))
            found[name] = replace(checkpoint, repo=repo)
    return found


def open_repo(name: str) -> Checkpoint:
    """Open one for planning.

    Raises:
        TensorSurgeonError: what `open_repos` says.
    """
    found = open_repos([name])[name]
    if isinstance(found, TensorSurgeonError):
        raise found
    return found


def _tried(asked: _Asked) -> Checkpoint | TensorSurgeonError:
    try:
        return _open(asked)
    except TensorSurgeonError as error:
        return error


def _open(asked: _Asked) -> Checkpoint:
    if constants.is_offline_mode():
        return _open_cached(asked, "HF_HUB_OFFLINE is set")
    has_token(str(asked))  # it is sent by itself; what must not fail is the asking for it
    try:
        with explained(asked.name, revision=asked.revision):
            listing = ask(asked.name, asked.revision)
    except UnreachableError:
        found = _open_cached(asked, f"{shown_endpoint()} cannot be reached")
        note = f"{shown_endpoint()} cannot be reached: {asked} is as the cache has it"
        return replace(found, notes=(*found.notes, printable(note)))
    folder = RepoFolder.of(asked.name)
    repo = _repo(asked, folder, listing)
    for small, limit in _small(repo.files).items():
        if repo.files[small].nbytes > limit:
            raise CheckpointError(f"is larger than {limit} bytes", where=f"{repo}/{small}")
        download(asked.name, small, repo.commit, label=asked.revision)
    if CARD_NAME in repo.files and repo.files[CARD_NAME].nbytes <= CARD_LIMIT:
        with suppress(HubError):  # it names the licence, without which all else can be done
            download(asked.name, CARD_NAME, repo.commit, label=asked.revision)
    folder.note_commit(asked.revision, repo.commit)
    keep(folder, listing)
    return _opened(asked, folder, repo)


def _small(files: Mapping[str, RemoteFile]) -> dict[str, int]:
    """The files that planning reads, and how large each may be."""
    limits = dict.fromkeys((n for n in files if n.endswith(CONFIG_NAME)), CONFIG_LIMIT)
    if INDEX_NAME in files:
        limits[INDEX_NAME] = INDEX_LIMIT
    return limits


def _repo(asked: _Asked, folder: RepoFolder, listing: Listing, lost: str = "") -> Repo:
    """A commit of a repository, with the files that the cache has of other commits linked to it."""
    files = listing.files
    repo = Repo(
        name=asked.name, revision=asked.revision, commit=listing.commit, files=files, lost=lost
    )
    if asked.config_name not in files:
        fix = APPLY_IT if ADAPTER_CONFIG in files else ""
        where = f"{repo}/{asked.config_name}"
        raise HubError("is not in the repository", where=where, fix=fix)
    folder.link(listing.commit, {n: file for n, file in files.items() if kind_of(n) is not None})
    return replace(repo, starts=partial(read_starts, repo, folder))


def _open_cached(asked: _Asked, lost: str) -> Checkpoint:
    """Open what the cache has, where the Hub cannot be asked."""
    folder = RepoFolder.of(asked.name)
    commit = folder.commit_of(asked.revision)
    files = None if commit is None else kept(folder, commit)
    if commit is None or (files is None and not folder.snapshot(commit).is_dir()):
        raise lacking_error(str(asked), (asked.config_name,), lost)
    if files is None:
        return _open_unlisted(asked, folder, commit, lost)
    repo = _repo(asked, folder, Listing(commit=commit, files=files), lost)
    snapshot = folder.snapshot(commit)
    if lacking := [name for name in _small(files) if not (snapshot / name).exists()]:
        raise lacking_error(str(asked), lacking, lost)
    return _opened(asked, folder, repo)


def _open_unlisted(asked: _Asked, folder: RepoFolder, commit: str, lost: str) -> Checkpoint:
    """The same where it is not known what else the repository holds."""
    snapshot = folder.snapshot(commit)
    files = _cached(snapshot)
    if asked.config_name not in files:
        raise lacking_error(str(asked), (asked.config_name,), lost)
    if INDEX_NAME not in files and not any(n.endswith(".safetensors") for n in files):
        raise lacking_error(str(asked), ("*.safetensors",), lost)
    repo = Repo(name=asked.name, revision=asked.revision, commit=commit, files=files, lost=lost)
    try:
        found = _opened(asked, folder, repo)
    except MissingTensorError as error:
        fix = f"{lost}: run again when it can be reached"
        error.problems = tuple(replace(problem, fix=fix) for problem in error.problems)
        raise
    note = f"{asked}: which files it has is not known: those that the cache has are taken for all"
    return replace(found, notes=(*found.notes, printable(note)))


def _opened(asked: _Asked, folder: RepoFolder, repo: Repo) -> Checkpoint:
    """The checkpoint; errors name the repository, not its folder in the cache."""
    snapshot = folder.snapshot(repo.commit)
    try:
        return (open_checkpoint if asked.kind == "models" else open_adapter)(snapshot, repo)
    except CheckpointError as error:
        error.problems = tuple(
            replace(problem, where=problem.where.replace(str(snapshot), str(repo)))
            for problem in error.problems
        )
        raise


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


def _cached(snapshot: Path) -> dict[str, RemoteFile]:
    """What the cache has of a commit; it keeps large files under their digests."""
    files = {}
    for path in snapshot.iterdir():
        if not path.is_file() or not is_plain(path.name):
            continue
        blob = Path(os.readlink(path)).name if path.is_symlink() else ""
        files[path.name] = RemoteFile(
            nbytes=path.stat().st_size,
            sha256=blob if re.fullmatch("[0-9a-f]{64}", blob) else None,
            git=blob if re.fullmatch("[0-9a-f]{40}", blob) else None,
        )
    return files
