"""Token shards on disk, as `train prepare` writes them and a training reads them.

A folder holds `tokens.json` (see `index`) and safetensors files, each with these tensors in this
order, so that every one is aligned to its elements:

- `documents`, I64 (n + 1): where each of its n documents begins in `tokens`, and the last ends;
- `tokens`, U16 or U32: U16 where the vocabulary has at most 65,536;
- `answers`, U8, as many: 1 where a token is learned, else 0; not in shards of texts.

No document is empty, and none lies in two shards. Of preferences, documents 2j and 2j + 1 are the
answers chosen and rejected, each after the same prompt.

Sizes, headers and offsets are checked when the folder is opened, tokens when they are read: each is
below the vocabulary, or an embedding on a GPU would end the process with no word of why. Digests
are compared by `train check` alone, as that reads every byte.
"""

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tensorsurgeon.checkpoint.header import read_header
from tensorsurgeon.errors import CheckpointError, DataError, fix_for
from tensorsurgeon.specs import DType, StoredTensor, TensorSpec
from tensorsurgeon.trainer.data.folders import no_such_folder
from tensorsurgeon.trainer.data.index import ShardEntry, TokenIndex, read_index

TOKENIZER_NAME = "tokenizer.json"

_OTHER_TOKENIZER_NAMES = (
    "added_tokens.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tekken.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
)

_HEADER_LIMIT = 1 << 20
_BUFFER = 1 << 22
_STRETCH = 1 << 26
_GAP = 1 << 16

Piece = tuple[int, int, int]
"""Some tokens of one document: its number, the first token's within it, and how many."""


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 of a checkpoint's tokenizer: of tokenizer.json, or, without that, of all its files.

    Raises:
        DataError: the folder has no tokenizer, or it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if (folder / TOKENIZER_NAME).is_file():
            return hashlib.sha256((folder / TOKENIZER_NAME).read_bytes()).hexdigest()
        names = [name for name in _OTHER_TOKENIZER_NAMES if (folder / name).is_file()]
        for name in names:
            content = (folder / name).read_bytes()
            digest.update(f"{name}\n{len(content)}\n".encode() + content)
    except OSError as error:
        what = f"its tokenizer cannot be read: {error.strerror}"
        raise DataError(what, where=str(folder), fix=fix_for(error)) from None
    if not names:
        fix = "name the folder of a checkpoint with its tokenizer"
        if not folder.is_dir():
            raise no_such_folder(folder, _has_tokenizer, fix)
        what = f"has no tokenizer: neither {TOKENIZER_NAME} nor files of an older kind"
        raise DataError(what, where=str(folder), fix=fix)
    return digest.hexdigest()


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (TOKENIZER_NAME, *_OTHER_TOKENIZER_NAMES))


def layout(index: TokenIndex, tokens: int, documents: int) -> list[TensorSpec]:
    """The tensors of a shard, in the order of their bytes."""
    dtype = DType.U16 if index.token_bytes == 2 else DType.U32
    specs = [
        TensorSpec(name="documents", dtype=DType.I64, shape=(documents + 1,)),
        TensorSpec(name="tokens", dtype=dtype, shape=(tokens,)),
    ]
    if index.has_answers:
        specs.append(TensorSpec(name="answers", dtype=DType.U8, shape=(tokens,)))
    return specs


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    """An open shard: its descriptor, and where in it tokens and answers begin, in bytes."""

    path: Path
    descriptor: int
    tokens_at: int
    answers_at: int


class TokenShards:
    """An open folder of token shards, to be closed; any thread may read.

    Attributes:
        folder: the folder.
        index: what `tokens.json` says.
        starts: (documents + 1,) int64, where each document begins in all tokens, and the last ends.
    """

    def __init__(self, folder: Path, index: TokenIndex) -> None:
        self.folder = folder
        self.index = index
        self._files: list[_File] = []
        self._bases: list[int] = []
        starts = [np.zeros(1, np.int64)]
        try:
            for entry in index.shards:
                base = int(starts[-1][-1])
                file, offsets = _open_shard(folder, index, entry)
                self._files.append(file)
                self._bases.append(base)
                starts.append(offsets[1:] + base)
        except BaseException:
            self.close()
            raise
        self.starts: NDArray[np.int64] = np.concatenate(starts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(documents,) int64, tokens of each document."""
        return np.diff(self.starts)

    @property
    def identity(self) -> str:
        """A digest of all that can be learned here, whatever the folder is called."""
        return hashlib.sha256(self.index.encode()).hexdigest()

    def read(self, pieces: Iterable[Piece]) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
        """Pieces of documents one after the other.

        Returns:
            (n,) int64 tokens, and (n,) bool where one is learned; None where all of them are.

        Raises:
            DataError: a file was cut or its disk failed, or a token is outside of the vocabulary.
        """
        pieces = list(pieces)
        total = sum(count for _, _, count in pieces)
        size = self.index.token_bytes
        raw = np.empty(total * size, np.uint8)
        learned = np.empty(total, np.uint8) if self.index.has_answers else None
        at = 0
        for document, first, count in pieces:
            start = int(self.starts[document]) + first
            number = bisect_right(self._bases, start) - 1
            file, place = self._files[number], start - self._bases[number]
            _fill(file, file.tokens_at + place * size, raw[at * size : (at + count) * size])
            if learned is not None:
                _fill(file, file.answers_at + place, learned[at : at + count])
            at += count
        tokens = raw.view("<u2" if size == 2 else "<u4").astype(np.int64)
        if total and int(tokens.max()) > self.index.largest_token:
            raise self._damaged(pieces, int(tokens.max()))
        return tokens, None if learned is None else learned != 0

    def learns_within(
        self, documents: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Of which documents a token is learned among the first ones, beside the very first.

        Answers of documents that are near each other are read at once, since a read for each of
        millions takes minutes; of texts nothing is read.

        Args:
            documents: (n,) int64, their numbers, ascending.
            counts: (n,) int64, how many tokens of each there are.

        Returns:
            (n,) bool.

        Raises:
            DataError: a file was cut, or its disk failed.
        """
        found = counts > 1
        if not self.index.has_answers:
            return found
        longer = np.flatnonzero(found)
        begins = self.starts[documents[longer]] + 1
        ends = begins + counts[longer] - 1
        numbers = np.searchsorted(self._bases, begins, side="right") - 1
        apart = (np.diff(numbers) > 0) | (np.diff(begins // _STRETCH) > 0)
        bounds = np.flatnonzero(apart | (begins[1:] - ends[:-1] > _GAP)) + 1
        for some in np.split(np.arange(len(longer)), bounds) if len(longer) else ():
            first, last = int(begins[some[0]]), int(ends[some[-1]])
            file, base = self._files[numbers[some[0]]], self._bases[numbers[some[0]]]
            answers = np.zeros(last - first + 1, np.uint8)  # one more, as an end may be the last
            _fill(file, file.answers_at + first - base, answers[:-1])
            edges = np.stack([begins[some], ends[some]], axis=1).reshape(-1) - first
            found[longer[some]] = np.maximum.reduceat(answers, edges)[::2] != 0
        return found

    def document(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
        """All tokens of a document, and which are learned; as `read`."""
        return self.read([(number, 0, int(self.starts[number + 1] - self.starts[number]))])

    def check_digests(self) -> None:
        """Read every byte.

        Raises:
            DataError: a shard is not what was written, or cannot be read.
        """
        for file, entry in zip(self._files, self.index.shards, strict=True):
            digest, buffer = hashlib.sha256(), np.empty(_BUFFER, np.uint8)
            for at in range(0, entry.bytes, _BUFFER):
                part = buffer[: min(_BUFFER, entry.bytes - at)]
                _fill(file, at, part)
                digest.update(part.data)
            if digest.hexdigest() != entry.sha256:
                what = f"is damaged: its SHA-256 is {digest.hexdigest()}, not {entry.sha256}"
                raise DataError(what, where=str(file.path), fix="prepare the tokens again")

    def close(self) -> None:
        """Close every file."""
        for file in self._files:
            os.close(file.descriptor)
        self._files.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _damaged(self, pieces: list[Piece], token: int) -> DataError:
        numbers = f"{pieces[0][0]} to {pieces[-1][0]}" if len(pieces) > 1 else str(pieces[0][0])
        return DataError(
            f"is damaged: token {token} in document {numbers} (counted from 0), where "
            f"{self.index.largest_token} is said to be the largest",
            where=str(self.folder),
            fix="prepare the tokens again",
        )


def open_tokens(
    folder: Path, *, tokenizer_digest: str | None, vocabulary: int | None
) -> TokenShards:
    """Open a folder of token shards for a model.

    Args:
        folder: the folder.
        tokenizer_digest: of the model's tokenizer; None for any.
        vocabulary: rows of the model's embedding; None for any. A tokenizer may well have more
            entries, as long as none of them occurs.

    Raises:
        DataError: it is damaged, has nothing to predict, or is of another tokenizer.
    """
    index = read_index(folder)
    if tokenizer_digest is not None and index.tokenizer != tokenizer_digest:
        raise DataError(
            f"was made with another tokenizer than the model's: SHA-256 {index.tokenizer}, "
            f"and the model's has {tokenizer_digest}",
            where=str(folder),
            fix="prepare the tokens again with --tokenizer and the model's folder",
        )
    if vocabulary is not None and index.largest_token >= vocabulary:
        raise DataError(
            f"has token {index.largest_token}, and the model's embedding only {vocabulary} rows",
            where=str(folder),
            fix="prepare the tokens again with --tokenizer and the model's folder",
        )
    _check_anything_is_learned(folder, index)
    return TokenShards(folder, index)


def _check_anything_is_learned(folder: Path, index: TokenIndex) -> None:
    if not index.documents:
        what = "is empty"
    elif index.tokens == index.documents:
        what = "has no document of two tokens, and so nothing to predict"
    elif not index.learned:
        what = "has no answer to learn"
    else:
        return
    raise DataError(what, where=str(folder), fix="prepare more tokens")


def _open_shard(
    folder: Path, index: TokenIndex, entry: ShardEntry
) -> tuple[_File, NDArray[np.int64]]:
    """A shard, and where its documents begin in it and the last ends, once these are checked."""
    path = folder / entry.file
    tensors = _check_header(path, index, entry)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise DataError(what, where=str(path), fix=fix_for(error)) from None
    answers = tensors.get("answers")
    file = _File(
        path=path,
        descriptor=descriptor,
        tokens_at=tensors["tokens"].offset,
        answers_at=answers.offset if answers else 0,
    )
    try:
        raw = np.empty(tensors["documents"].spec.nbytes, np.uint8)
        _fill(file, tensors["documents"].offset, raw)
        offsets = raw.view("<i8").astype(np.int64)
        if offsets[0] != 0 or offsets[-1] != entry.tokens or (np.diff(offsets) <= 0).any():
            what = "is damaged: its documents do not divide its tokens"
            raise DataError(what, where=str(path), fix="prepare the tokens again")
    except BaseException:
        os.close(descriptor)
        raise
    return file, offsets


def _check_header(path: Path, index: TokenIndex, entry: ShardEntry) -> dict[str, StoredTensor]:
    try:
        tensors = read_header(path, limit=_HEADER_LIMIT)
        size = path.stat().st_size
    except CheckpointError as error:
        raise DataError.of(error.problems) from None
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise DataError(what, where=str(path), fix=fix_for(error)) from None
    wanted = layout(index, entry.tokens, entry.documents)
    if [tensor.spec for tensor in tensors.values()] != wanted or size != entry.bytes:
        what = "is not what tokens.json says: other tensors, or another size"
        raise DataError(what, where=str(path), fix="prepare the tokens again")
    return tensors


def _fill(file: _File, offset: int, target: NDArray[np.uint8]) -> None:
    """Positioned reads rather than a mapping: a mapped file that shrinks kills the process."""
    view, done = target.data, 0
    while done < len(view):
        try:
            got = os.preadv(file.descriptor, [view[done:]], offset + done)
        except OSError as error:
            what = f"reading failed at byte {offset + done}: {error.strerror}"
            raise DataError(what, where=str(file.path)) from None
        if got == 0:
            what = f"ended at byte {offset + done}: it was cut short since it was opened"
            raise DataError(what, where=str(file.path), fix="prepare the tokens again")
        done += got
