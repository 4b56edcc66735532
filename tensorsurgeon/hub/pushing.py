"""A checkpoint folder put to the Hub in one commit, and compared with it by digest afterwards.

Large files are sent first, a few at a time; what the Hub has of them is not sent again. Only then
is everything committed, on top of the commit that the branch was at when the work began, so that
the repository shows the old model or the new one, and nobody else's change is lost.
"""

import re
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError

from tensorsurgeon import __version__
from tensorsurgeon.checkpoint import RemoteFile, open_checkpoint
from tensorsurgeon.errors import PushError, shortened
from tensorsurgeon.hub.outgoing import differing, find_files
from tensorsurgeon.hub.requests import TRIES, pause_after
from tensorsurgeon.hub.sending import Addition, Sending, lacking
from tensorsurgeon.hub.target import Head, Target, client, pushing
from tensorsurgeon.specs import Progress

MESSAGE = f"Upload with TensorSurgeon {__version__}"

_CONFLICT = 412

_STALE = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
"""Names under which transformers looks for weights."""


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What a push did.

    Attributes:
        address: where people can look at the commit.
        commit: the commit.
        is_new: whether it was made; else the branch had all files already.
        removed: weights of an earlier model that the commit took away.
        has_made_repo: whether the repository was made for this.
    """

    address: str
    commit: str
    is_new: bool
    removed: tuple[str, ...]
    has_made_repo: bool


def push_folder(
    folder: Path, target: Target, *, message: str = MESSAGE, progress: Progress | None = None
) -> Pushed:
    """Put a checkpoint to the Hub.

    Args:
        folder: the checkpoint; hidden files in it stay here.
        target: where to.
        message: the commit's.
        progress: told how far it is; every file is read once and sent once.

    Raises:
        CheckpointError: the folder is no sound checkpoint.
        PushError: a file changed meanwhile, the branch has moved, or the Hub cannot be written to.
            The branch is as it was, unless the message says otherwise.
        KeyboardInterrupt: soon, whatever the network does.
    """
    open_checkpoint(folder)
    return _push(target, folder, {}, message, progress)


def _push(
    target: Target,
    folder: Path,
    sent: Mapping[str, RemoteFile],
    message: str,
    progress: Progress | None = None,
) -> Pushed:
    """Push a folder's files, together with large ones that were sent before."""
    paths = find_files(folder)
    total = 2 * sum(path.stat().st_size for path in paths.values())
    sending = Sending(target, total, progress or (lambda _done, _total: None))
    files = sending.digest(paths)
    contents = {**sent, **{file.name: file.content for file in files}}
    if not _remaining(target.head, contents):
        return _outcome(target, target.head.commit, is_new=False)
    additions = sending.send(files)
    additions += [Addition.already_sent(name, content) for name, content in sent.items()]
    for file in files:
        file.check_unchanged()
    if find_files(folder).keys() != paths.keys():
        raise PushError(
            "has changed while it was sent: nothing is committed",
            where=str(folder),
            fix="run again once nothing writes to it any more",
        )
    return _commit(target, contents, additions, message)


def _remaining(head: Head, contents: Mapping[str, RemoteFile]) -> list[str]:
    """What a commit would still have to change."""
    return [*differing(contents, head.files), *_stale(head, contents)]


def _stale(head: Head, names: Iterable[str]) -> tuple[str, ...]:
    """The weights of an earlier model, which loaders would take for the new one's."""
    return tuple(sorted(name for name in head.files.keys() - set(names) if _STALE.fullmatch(name)))


def _commit(
    target: Target,
    contents: Mapping[str, RemoteFile],
    additions: Sequence[Addition],
    message: str,
) -> Pushed:
    """Commit what was sent, and compare what the Hub then lists.

    Args:
        target: where to.
        contents: the files that shall be there, with all digests.
        additions: the same, as the client knows them.
        message: the commit's.

    Raises:
        PushError: the branch has moved, or the Hub lists something else afterwards.
    """
    stale = _stale(target.head, contents)
    deletions = [CommitOperationDelete(path_in_repo=name, is_folder=False) for name in stale]
    with pushing(target.repo, target.branch):
        made = _committed(target, contents, [*deletions, *additions], message)
    if other := differing(contents, target.at(made).files):
        raise PushError(
            f"the commit {made} has other bytes than were sent: {shortened(', '.join(other))}",
            where=str(target),
            fix="push again; if it stays, look whether the repository's .gitignore names them",
        )
    return _outcome(target, made, is_new=True, removed=stale)


def _outcome(target: Target, made: str, *, is_new: bool, removed: tuple[str, ...] = ()) -> Pushed:
    return Pushed(
        address=target.address(made),
        commit=made,
        is_new=is_new,
        removed=removed,
        has_made_repo=target.is_new,
    )


def _committed(
    target: Target,
    contents: Mapping[str, RemoteFile],
    operations: Sequence[Addition | CommitOperationDelete],
    message: str,
) -> str:
    """Make the commit, in several tries if need be; one whose answer was lost is found."""
    for number in range(TRIES):
        try:
            return _commit_once(target, operations, message)
        except (HfHubHTTPError, httpx2.HTTPError) as error:
            head = target.at()
            if head.commit != target.head.commit and not _remaining(head, contents):
                return head.commit
            if head.commit != target.head.commit or _status(error) == _CONFLICT:
                raise PushError(
                    "has moved while the files were sent: nothing is committed",
                    where=f"{target.repo}@{target.branch}",
                    fix="push again, on top of what is there now",
                ) from None
            pause = pause_after(error, number)
            if number == TRIES - 1:
                raise
            time.sleep(pause)
    raise AssertionError("the last try either returns or raises")


def _commit_once(
    target: Target, operations: Sequence[Addition | CommitOperationDelete], message: str
) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the card's metadata, in the Hub's words
            made = client().create_commit(
                target.repo,
                operations,
                commit_message=message,
                revision=target.branch,
                parent_commit=target.head.commit,
            )
        return str(made.oid)
    except ValueError as error:
        what = f"README.md is refused: {shortened(' '.join(str(error).split()), 300)}"
        raise PushError(what, where=str(target), fix="mend its front matter") from None


def _status(error: Exception) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


class HubDelivery:
    """Sends shards that are not kept; conforms to the executor's `Delivery`.

    Args:
        target: where to.
        message: the commit's.
    """

    def __init__(self, target: Target, message: str = MESSAGE) -> None:
        self._target, self._message = target, message

    def lacking(self, shards: Mapping[str, RemoteFile]) -> list[str]:
        """Which of these shards the Hub does not have.

        Raises:
            PushError: it cannot be asked.
        """
        return lacking(self._target, shards)

    def send(self, shard: Path, progress: Progress) -> str:
        """Send a shard; returns its SHA-256, hexadecimal.

        Raises:
            PushError: the Hub does not take it.
            KeyboardInterrupt: soon.
        """
        sending = Sending(self._target, 2 * shard.stat().st_size, _halved(progress))
        (file,) = sending.digest({shard.name: shard})
        sending.send([file])
        file.check_unchanged()
        return str(file.content.sha256)

    def publish(self, folder: Path, shards: Mapping[str, RemoteFile]) -> str:
        """Commit what was sent, with the files of a folder; returns the commit's address.

        Raises:
            PushError: as `push_folder`.
        """
        return _push(self._target, folder, shards, self._message).address


def _halved(progress: Progress) -> Progress:
    """Told of reading and sending; tells of as many bytes as there are."""
    return lambda done, total: progress(done // 2, total // 2)
