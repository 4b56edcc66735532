"""Where a checkpoint is pushed to: a branch of a repository, opened before anything is sent."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2
from huggingface_hub import ModelInfo, constants
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from tensorsurgeon.checkpoint import RemoteFile
from tensorsurgeon.errors import HubError, PushError, TensorSurgeonError, shortened
from tensorsurgeon.hub.client import client, set_for_pushing
from tensorsurgeon.hub.errors import explained, shown_endpoint
from tensorsurgeon.hub.intact import StoppedError
from tensorsurgeon.hub.requests import retried
from tensorsurgeon.hub.signing_in import has_token

_WRITING = "log in with 'hf auth login', or set HF_TOKEN, with a token that may write"

_REFUSALS = frozenset({400, 402, 403, 409, 413, 422})

_REFUSED_OBJECT = "LFS batch API returned errors:"
"""How the client begins what the Hub says of a single large file."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a branch is at.

    Attributes:
        commit: its last commit.
        files: every file of that, by path.
    """

    commit: str
    files: Mapping[str, RemoteFile]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A branch of a repository to which this user may write.

    Attributes:
        repo: `org/name`.
        branch: its branch.
        head: what that was at when it was opened; whatever is pushed follows on it.
        is_new: whether the repository was made for this.
    """

    repo: str
    branch: str
    head: Head
    is_new: bool

    def __str__(self) -> str:
        return self.repo if self.branch == constants.DEFAULT_REVISION else self._full

    @property
    def _full(self) -> str:
        return f"{self.repo}@{self.branch}"

    def address(self, commit: str) -> str:
        """Where people can look at a commit."""
        return f"{shown_endpoint()}/{self.repo}/commit/{commit}"

    def at(self, commit: str | None = None) -> Head:
        """What the branch is at now, or what a commit holds.

        Raises:
            PushError: the Hub cannot be asked.
        """
        with pushing(self.repo, self.branch):
            return _head(self.repo, commit or self.branch)


@contextmanager
def pushing(repo: str, branch: str = "", file: str = "") -> Iterator[None]:
    """Errors of the client, of the network and of files that are sent, as those of pushing."""
    place = f"{repo}@{branch}" if branch else repo
    where = f"{place}/{file}" if file else place
    try:
        with explained(repo, revision=branch, file=file), _refused(where), _strange(where):
            try:
                yield
            except RuntimeError as error:  # the client's, around that of an upload
                raise error.__cause__ or error from None
    except HubError as error:
        raise PushError.of(error.problems) from None
    except OSError as error:
        raise PushError(f"cannot be sent: {error.strerror or error}", where=where) from None


@contextmanager
def _refused(where: str) -> Iterator[None]:
    """What the Hub says when it refuses something: a full quota, a limit of sizes, a rule."""
    try:
        yield
    except HfHubHTTPError as error:
        status, said = error.response.status_code, error.server_message or ""
        is_hub = error.response.request.url.netloc == httpx2.URL(constants.ENDPOINT).netloc
        if status not in _REFUSALS or not said or not is_hub:
            raise
        what = f"{shown_endpoint()} refuses it ({status}): {shortened(said, 300)}"
        fix = _WRITING if status == 403 else ""
        raise PushError(what, where=where, fix=fix) from None


@contextmanager
def _strange(where: str) -> Iterator[None]:
    """What the client makes of answers that it does not understand: errors of any kind."""
    try:
        yield
    except (HFValidationError, HfHubHTTPError, httpx2.HTTPError, TensorSurgeonError, OSError):
        raise
    except Exception as error:
        if isinstance(error, StoppedError):
            raise
        said = " ".join(str(error).split())
        if isinstance(error, ValueError) and said.startswith(_REFUSED_OBJECT):
            what = f"{shown_endpoint()} refuses it: {shortened(said, 300)}"
            raise PushError(what, where=where) from None
        raise PushError(
            f"{shown_endpoint()} does not answer like a Hub ({type(error).__name__})",
            where=where,
            fix="check HF_ENDPOINT and the proxy, then push again",
        ) from error


def check_target(name: str) -> tuple[str, str]:
    """Which repository and branch a name means; whether there is a token to push with.

    Raises:
        PushError: no token, or no name of a repository.
    """
    repo, at, branch = name.removeprefix("hf://").partition("@")
    if "/" not in repo or (at and not branch):
        raise PushError(
            "is no name of a repository",
            where=shortened(name),
            fix="a name is like org/name, or org/name@branch",
        )
    with pushing(repo):
        validate_repo_id(repo)
    if constants.is_offline_mode():
        raise PushError("cannot be pushed to: HF_HUB_OFFLINE is set", where=repo, fix="unset it")
    with pushing(repo):
        is_known = has_token(repo)
    if not is_known:
        raise PushError("cannot be pushed to without a token", where=repo, fix=_WRITING)
    return repo, branch or constants.DEFAULT_REVISION


@set_for_pushing()
def open_target(name: str, *, public: bool = False) -> Target:
    """Open a branch for writing; make the repository, or the branch, if it is not there.

    Args:
        name: `org/name`, `org/name@branch` or `hf://…`.
        public: whether a repository that is made is public.

    Raises:
        PushError: no token, no right to write there, no network, or no name of a repository.
    """
    repo, branch = check_target(name)
    return _opened(repo, branch, public=public)


def _opened(repo: str, branch: str, *, public: bool) -> Target:
    api, is_new = client(), False
    with pushing(repo, branch):
        try:
            head = _head(repo, branch)
        except RepositoryNotFoundError:
            is_new = True
            retried(lambda: api.create_repo(repo, private=not public, exist_ok=True))
            head = _with_branch(repo, branch)
        except RevisionNotFoundError:
            head = _with_branch(repo, branch)
        retried(lambda: api.auth_check(repo, write=True))
        if branch != constants.DEFAULT_REVISION and not branch.startswith("refs/"):
            _check_branch(repo, branch)
    return Target(repo=repo, branch=branch, head=head, is_new=is_new)


def _check_branch(repo: str, branch: str) -> None:
    refs = retried(lambda: client().list_repo_refs(repo))
    if branch not in {ref.name for ref in refs.branches}:
        raise PushError(
            "is a tag or a commit, and no branch",
            where=f"{repo}@{branch}",
            fix="name a branch: one that is not there is made",
        )


def _with_branch(repo: str, branch: str) -> Head:
    if branch != constants.DEFAULT_REVISION:
        retried(lambda: client().create_branch(repo, branch=branch, exist_ok=True))
    return _head(repo, branch)


def _head(repo: str, revision: str) -> Head:
    info: ModelInfo = retried(
        lambda: client().model_info(
            repo,
            revision=revision,
            files_metadata=True,
            timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        )
    )
    if not isinstance(info.sha, str) or not re.fullmatch("[0-9a-f]{40}", info.sha):
        raise HubError(f"{shown_endpoint()} does not answer like a Hub", where=repo)
    files = {
        sibling.rfilename: RemoteFile(
            nbytes=sibling.size or 0,
            sha256=sibling.lfs.sha256 if sibling.lfs else None,
            git=None if sibling.lfs else sibling.blob_id,
        )
        for sibling in info.siblings or ()
    }
    return Head(commit=info.sha, files=files)
