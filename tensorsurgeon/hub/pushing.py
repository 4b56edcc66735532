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
from huggingface_hub import CommitOperationDelete, constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import get_session

from tensorsurgeon import __version__
from tensorsurgeon.checkpoint import CARD_NAME, RemoteFile, open_checkpoint
from tensorsurgeon.errors import PushError, shortened
from tensorsurgeon.hub.client import client, set_for_pushing
from tensorsurgeon.hub.outgoing import Outgoing, changed, differing, find_files
from tensorsurgeon.hub.requests import TRIES, headers, pause_after
from tensorsurgeon.hub.sending import Addition, Sending
from tensorsurgeon.hub.target import Head, Target, pushing
from tensorsurgeon.specs import Progress

MESSAGE = f"Upload with TensorSurgeon {__version__}"

_CONFLICT = 412
_REFUSED = 400

_STALE = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
"""Names under which transformers looks for weights."""


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What a push did.

    Attributes:
        address: where people can look at the commit.
        commit: the commit.
        is_new: whether it was made; else the branch had all files already.
        notes: what was there before and is not any more.
        has_made_repo: whether the repository was made for this.
    """

    address: str
    commit: str
    is_new: bool
    notes: tuple[str, ...]
    has_made_repo: bool


@set_for_pushing()
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
    return push_files(target, folder, {}, message, progress)


def push_files(
    target: Target,
    folder: Path,
    sent: Mapping[str, RemoteFile],
    message: str,
    progress: Progress | None = None,
) -> Pushed:
    """Push a folder's files, together with large ones that were sent before; see `push_folder`."""
    paths = find_files(folder)
    total = 2 * sum(path.stat().st_size for path in paths.values())
    sending = Sending(target, total, progress or (lambda _done, _total: None))
    files = sending.digest(paths)
    contents = {**sent, **{file.name: file.content for file in files}}
    if not _remaining(target.head, contents):
        return _outcome(target, target.head.commit, is_new=False)
    _check_card(target, files)
    additions = sending.send(files)
    additions += [Addition.already_sent(name, content) for name, content in sent.items()]
    for file in files:
        file.check_unchanged()
    if find_files(folder).keys() != paths.keys():
        raise changed(folder)
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
    stale, remaining = _stale(target.head, contents), _remaining(target.head, contents)
    deletions = [CommitOperationDelete(path_in_repo=name, is_folder=False) for name in stale]
    with pushing(target.repo, target.branch):
        made = _committed(target, contents, [*deletions, *additions], message)
    if other := differing(contents, target.at(made).files):
        raise PushError(
            f"the commit {made} has other bytes than were sent: {shortened(', '.join(other))}",
            where=str(target),
            fix="push again; if it stays, look whether the repository's .gitignore names them",
        )
    notes = [f"removed {name}, weights of an earlier model" for name in stale]
    if CARD_NAME in contents and CARD_NAME in target.head.files and CARD_NAME in remaining:
        notes += [f"replaced {CARD_NAME}; what it said before is in the repository's history"]
    return _outcome(target, made, is_new=True, notes=tuple(notes))


def _outcome(target: Target, made: str, *, is_new: bool, notes: tuple[str, ...] = ()) -> Pushed:
    return Pushed(
        address=target.address(made),
        commit=made,
        is_new=is_new,
        notes=notes,
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


def _check_card(target: Target, files: Iterable[Outgoing]) -> None:
    """Have the Hub look at the card, before anything is sent that goes with it.

    Raises:
        PushError: it refuses the card.
    """
    card = next((file.data for file in files if file.name == CARD_NAME), None)
    if card is None:
        return
    try:
        text = card.decode()
    except UnicodeDecodeError:
        raise PushError("is not UTF-8", where=CARD_NAME, fix="write it as UTF-8") from None
    with pushing(target.repo, target.branch, CARD_NAME):
        answer = get_session().post(
            f"{constants.ENDPOINT}/api/validate-yaml",
            json={"content": text, "repoType": "model"},
            headers=headers(),
        )
        if answer.status_code != _REFUSED:
            return  # with a commit the client asks once more
        said = "; ".join(str(error.get("message")) for error in answer.json()["errors"])
    raise PushError(
        f"is refused: {shortened(said, 300)}",
        where=f"{target}/{CARD_NAME}",
        fix="mend its front matter; nothing was sent",
    )


def _status(error: Exception) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None
