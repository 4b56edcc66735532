"""Writing token shards: beside their place, under a lock, flushed, and moved there whole."""

import hashlib
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tensorsurgeon.checkpoint import encode_header
from tensorsurgeon.errors import DataError, PlanError
from tensorsurgeon.trainer.data.index import INDEX_NAME, Kind, ShardEntry, TokenIndex, token_bytes
from tensorsurgeon.trainer.data.shards import layout
from tensorsurgeon.writing import (
    Disk,
    Workplace,
    check_workplace,
    locked,
    output_explained,
    parents_made,
)

SHARD_SIZE = 256_000_000
"""Bytes of tokens and answers after which a shard is written; also what is held in memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """Tokens that belong together.

    Attributes:
        tokens: (n,) whole numbers, at least one.
        answers: (n,) bool, which of them are learned; None for all.
    """

    tokens: NDArray[np.integer]
    answers: NDArray[np.bool_] | None = None


class ShardWriter:
    """Writes documents to one folder; made by `writing_shards`, which moves it to its place.

    Args:
        disk: what to write to.
        folder: an empty folder.
        empty: the index of a folder without a document.
        shard_size: bytes of tokens and answers after which a shard is written.
    """

    def __init__(self, disk: Disk, folder: Path, empty: TokenIndex, shard_size: int) -> None:
        self._disk = disk
        self._folder = folder
        self._empty = empty
        self._shard_size = shard_size
        self._dtype = "<u2" if token_bytes(empty.vocabulary) == 2 else "<u4"
        self._shards: list[ShardEntry] = []
        self._largest = 0
        self._learned = 0
        self._finished: TokenIndex | None = None
        self._begin_shard()

    @property
    def index(self) -> TokenIndex:
        """What has been written so far."""
        changes = {
            "largest_token": self._largest,
            "tokens": sum(shard.tokens for shard in self._shards),
            "documents": sum(shard.documents for shard in self._shards),
            "learned": self._learned,
            "shards": tuple(self._shards),
        }
        return self._empty.model_copy(update=changes)

    def add(self, documents: Sequence[Document]) -> None:
        """Append documents that are to be in one shard: one, or an answer chosen and one rejected.

        Raises:
            DataError: a token is outside of the vocabulary.
        """
        for document in documents:
            if not len(document.tokens):
                raise AssertionError("a document has at least one token")
            largest = int(document.tokens.max())
            if largest >= self._empty.vocabulary or int(document.tokens.min()) < 0:
                what = f"makes token {largest}, and has only {self._empty.vocabulary}"
                raise DataError(what, where="the tokenizer")
            self._largest = max(self._largest, largest)
            self._tokens += document.tokens.astype(self._dtype).tobytes()
            if document.answers is not None:
                self._answers += document.answers.astype(np.uint8).tobytes()
                self._learned += int(document.answers.sum())
            else:
                self._learned += len(document.tokens)
            self._offsets.append(self._offsets[-1] + len(document.tokens))
        if len(self._tokens) + len(self._answers) >= self._shard_size:
            self._write_shard()

    def finish(self) -> TokenIndex:
        """Write what is left and the index; everything is on the disk when this returns.

        Called by `writing_shards`; before that by those who have several outputs, so that all of
        them are written before any appears.
        """
        if self._finished is not None:
            return self._finished
        if len(self._offsets) > 1:
            self._write_shard()
        index = TokenIndex.model_validate(self.index.model_dump())
        self._disk.write_file(self._folder / INDEX_NAME, index.encode())
        self._disk.flush_folder(self._folder)
        self._finished = index
        return index

    def _begin_shard(self) -> None:
        self._tokens = bytearray()
        self._answers = bytearray()
        self._offsets = array("q", [0])

    def _write_shard(self) -> None:
        tokens, documents = self._offsets[-1], len(self._offsets) - 1
        parts: list[bytes | bytearray] = [
            encode_header(layout(self._empty, tokens, documents)),
            np.frombuffer(self._offsets, np.int64).astype("<i8").tobytes(),
            self._tokens,
            self._answers,
        ]
        name = f"tokens-{len(self._shards) + 1:05d}.safetensors"
        digest, at = hashlib.sha256(), 0
        descriptor = self._disk.create(self._folder / name)
        try:
            for part in parts:
                self._disk.write(descriptor, memoryview(part), at)
                digest.update(part)
                at += len(part)
            self._disk.flush(descriptor)
        finally:
            os.close(descriptor)
        entry = ShardEntry(
            file=name, bytes=at, sha256=digest.hexdigest(), tokens=tokens, documents=documents
        )
        self._shards.append(entry)
        self._begin_shard()


@contextmanager
def writing_shards(
    final: Path,
    *,
    kind: Kind,
    tokenizer: str,
    vocabulary: int,
    end_of_document: int,
    sources: Sequence[Path] = (),
    shard_size: int = SHARD_SIZE,
    overwrite: bool = False,
    disk: Disk | None = None,
) -> Iterator[ShardWriter]:
    """A writer of token shards, which are moved to `final` when the block ends.

    If anything goes wrong in the block or after it, nothing of this is left, and what was at
    `final` is still there.

    Args:
        final: the folder to make.
        kind: what the documents are for.
        tokenizer: SHA-256 of the tokenizer.
        vocabulary: every token is below.
        end_of_document: the token that ends a document.
        sources: files and folders that are read, which `final` must not be in or around.
        shard_size: bytes of tokens and answers after which a shard is written.
        overwrite: whether token shards that are there may be replaced.
        disk: what to write to.

    Raises:
        BusyError: another run is writing there.
        DataError: there is no document.
        OutputError: writing failed.
        PlanError: the folder cannot be made there, or is there already.
    """
    final = final.absolute()
    check_workplace(final, sources, 0)
    empty = TokenIndex(
        kind=kind,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        largest_token=0,
        end_of_document=end_of_document,
        tokens=0,
        documents=0,
        learned=0,
        shards=(),
    )
    place, disk = Workplace.of(final), disk or Disk()
    with output_explained(final), parents_made(final.parent, disk), locked(place, disk):
        try:
            place.put_back(disk)
            _check_replaceable(final, overwrite=overwrite)
            for left in (place.checkpoint, place.old):  # by a run that was killed
                place.discard(disk, left)
            disk.make_folder(place.checkpoint)
            writer = ShardWriter(disk, place.checkpoint, empty, shard_size)
            yield writer
            if not writer.finish().documents:
                what = "would be empty: no text has anything to learn"
                raise DataError(what, where=str(final), fix="give more texts")
            _check_replaceable(final, overwrite=overwrite)  # it may have been made only now
            place.publish(disk, overwrite=overwrite)
        finally:
            with suppress(OSError):
                place.remove(disk)


def _check_replaceable(path: Path, *, overwrite: bool) -> None:
    """Replace token shards alone, and only where that was asked for."""
    if not path.exists() and not path.is_symlink():
        return
    if not overwrite:
        raise PlanError("is already there", where=str(path), fix="--overwrite replaces it")
    if path.is_symlink() or not path.is_dir():
        raise PlanError("is not a folder, and so not replaced", where=str(path))
    names = {entry.name for entry in path.iterdir()}
    others = {name for name in names if not name.startswith("tokens")}
    if names and (INDEX_NAME not in names or others):
        raise PlanError(
            "is not replaced: it holds something else than token shards",
            where=str(path),
            fix="choose another output folder",
        )
