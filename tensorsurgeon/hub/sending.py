"""Files on their way to the Hub: digested, sent a few at a time, and told how far they are."""

import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from huggingface_hub import CommitOperationAdd
from huggingface_hub.lfs import UploadInfo, post_lfs_batch_info

from tensorsurgeon.checkpoint import RemoteFile
from tensorsurgeon.errors import PushError
from tensorsurgeon.hub.client import client
from tensorsurgeon.hub.intact import StoppedError
from tensorsurgeon.hub.outgoing import Outgoing, digested
from tensorsurgeon.hub.requests import headers
from tensorsurgeon.hub.target import Target, pushing
from tensorsurgeon.hub.threads import in_threads
from tensorsurgeon.specs import Progress

CONNECTIONS = 2
"""Files on their way at a time."""

_SMALL = 1_000_000
"""Files up to this size, in bytes, are left to the commit, which asks for many at once."""

_BATCH = 256
"""Most files that the Hub is asked of at a time."""

T = TypeVar("T")
R = TypeVar("R")


class Addition(CommitOperationAdd):
    """A file as the client knows it, which tells how much of it was read to be sent."""

    advance: Callable[[int], None]

    @classmethod
    def of(cls, file: Outgoing, advance: Callable[[int], None]) -> "Addition":
        """A file to be sent; its digest is known, so that the client takes none."""
        source = str(file.path) if file.data is None else file.data
        made = cls(path_in_repo=file.name, path_or_fileobj=source)
        made.upload_info = _upload_info(file.content, made.upload_info.sample)
        made.advance = advance
        if file.is_shard:  # whatever the repository's .gitattributes say
            made._upload_mode, made._should_ignore = "lfs", False
        return made

    @classmethod
    def already_sent(cls, name: str, content: RemoteFile) -> "Addition":
        """A large file that the Hub has, and that need not be here any more."""
        made = cls(path_in_repo=name, path_or_fileobj=b"")
        made.upload_info = _upload_info(content)
        # What `preupload_lfs_files` notes of a file that it has sent.
        made._upload_mode, made._should_ignore, made._is_uploaded = "lfs", False, True
        return made

    @contextmanager
    def as_file(self, with_tqdm: bool = False) -> Iterator[BinaryIO]:  # noqa: ARG002
        """The file, opened; no bar is drawn."""
        if isinstance(self.path_or_fileobj, str):
            with _Watched(self.path_or_fileobj, self.advance) as file:
                yield cast("BinaryIO", file)
        else:
            with super().as_file() as other:
                yield other


class _Watched(io.FileIO):
    """A file of which somebody is told how much was read."""

    def __init__(self, path: str, advance: Callable[[int], None]) -> None:
        super().__init__(path)
        self._advance = advance

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(-1 if size is None else size)
        self._advance(len(data))
        return data


def lacking(target: Target, files: Mapping[str, RemoteFile]) -> list[str]:
    """Which of these large files the Hub does not have.

    Raises:
        PushError: it cannot be asked.
    """
    names, absent = list(files), set[str]()
    for start in range(0, len(names), _BATCH):
        with pushing(target.repo, target.branch):
            wanted, refused, _ = post_lfs_batch_info(
                [_upload_info(files[name]) for name in names[start : start + _BATCH]],
                token=None,
                repo_type="model",
                repo_id=target.repo,
                revision=target.branch,
                headers=headers(),
            )
        absent |= {answer["oid"] for answer in wanted if answer.get("actions")}
        absent |= {answer["oid"] for answer in refused}
    return [name for name in names if files[name].sha256 in absent]


def _upload_info(file: RemoteFile, sample: bytes = b"") -> UploadInfo:
    return UploadInfo(size=file.nbytes, sample=sample, sha256=bytes.fromhex(file.sha256 or ""))


class Sending:
    """Files that are digested and sent, and what the threads share.

    Args:
        target: where to.
        total: bytes that are read from first to last.
        progress: told how far it is.
    """

    def __init__(self, target: Target, total: int, progress: Progress) -> None:
        self._target, self._progress, self._total = target, progress, total
        self._stop, self._counting = threading.Event(), threading.Lock()
        self._done = 0

    def digest(self, paths: Mapping[str, Path]) -> list[Outgoing]:
        """The files with their digests, in the order of their names.

        Raises:
            PushError: one cannot be read.
        """

        def digest(name: str) -> Outgoing:
            return digested(name, paths[name], self._stop, self._advance)

        found = self._in_threads(digest, list(paths))
        return [found[name] for name in sorted(found)]

    def send(self, files: Sequence[Outgoing]) -> list[Addition]:
        """Send the large ones of these; the small ones go along with the commit.

        Shards are large, whatever their size: what is sent is not needed any more.

        Raises:
            PushError: the Hub does not take one.
        """
        waiting = {file: self._addition(file) for file in files}
        large = [file for file in files if file.content.nbytes > _SMALL or file.is_shard]
        self._in_threads(lambda file: self._send(file, waiting[file]), large)
        return list(waiting.values())

    def _addition(self, file: Outgoing) -> Addition:
        left = file.content.nbytes

        def sent(nbytes: int) -> None:
            nonlocal left
            if self._stop.is_set():
                raise StoppedError
            count = min(left, nbytes)  # of what is sent again nothing is counted
            left -= count
            self._advance(count)

        return Addition.of(file, sent)

    def _send(self, file: Outgoing, addition: Addition) -> None:
        try:
            with pushing(self._target.repo, self._target.branch, file.name):
                client().preupload_lfs_files(
                    self._target.repo, [addition], revision=self._target.branch, num_threads=1
                )
        except PushError:
            file.check_unchanged()  # that says more
            raise
        addition.advance(file.content.nbytes)  # also where the Hub had it

    def _advance(self, nbytes: int) -> None:
        with self._counting:
            self._done += nbytes

    def _in_threads(self, function: Callable[[T], R], items: Sequence[T]) -> dict[T, R]:
        def tick() -> None:
            self._progress(min(self._done, self._total), self._total)

        return in_threads(function, items, CONNECTIONS, tick=tick, stop=self._stop)
