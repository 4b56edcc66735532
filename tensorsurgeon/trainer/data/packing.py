"""How documents fill samples: which tokens of which documents a sample is made of, and its labels.

Pure functions of lengths, a key and numbers: nothing is read here. Within a source, epoch `e` is
its samples `e * n` to `(e + 1) * n - 1`, in an order of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tensorsurgeon.errors import DataError
from tensorsurgeon.trainer.counted import counted
from tensorsurgeon.trainer.data.orders import Recent, order

Packing = Literal["stream", "documents"]
TooLong = Literal["error", "truncate", "skip"]

IGNORED = -100
"""The label of a position where nothing is learned, as torch's cross-entropy has it."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One sequence of T positions, in which no document sees another.

    Attributes:
        tokens: (T,) int64.
        labels: (T,) int64, the token after this one in its document where that is learned, else
            IGNORED.
        positions: (T,) int64, from 0 on in each document.
        documents: (T,) int32, each document's number in the sample; padding is the last.
        pairs: (P,) int64, of preferences each pair's number in its data set; documents 2j and
            2j + 1 are the answers chosen and rejected of the pair at j. Else (0,).
        source: the number of the data set in the mixture.
    """

    tokens: NDArray[np.int64]
    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    documents: NDArray[np.int32]
    pairs: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    source: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What a sample is made of.

    Attributes:
        documents: (k,) int64, their numbers in the data set.
        firsts: (k,) int64, the first token taken of each.
        counts: (k,) int64, how many are taken; at most T in all.
        ahead: whether the last document goes on, so that its next token is the last label.
    """

    documents: Numbers
    firsts: Numbers
    counts: Numbers
    ahead: bool = False

    def pieces(self) -> list[tuple[int, int, int]]:
        """What to read, the token ahead included."""
        counts = self.counts.copy()
        counts[-1] += self.ahead
        columns = self.documents.tolist(), self.firsts.tolist(), counts.tolist()
        return list(zip(*columns, strict=True))


class Packer(Protocol):
    """How the documents of one data set fill samples."""

    samples: int
    """In an epoch."""

    def content(self, epoch: int, position: int) -> Content:
        """What the sample at a position of an epoch is made of."""


class StreamPacker:
    """The documents of an epoch one after the other, cut into samples of T tokens.

    What is left over at the end of an epoch, less than T tokens, is not learned in it.

    Args:
        lengths: (documents,) int64, in tokens.
        sequence_length: T.
        key: of the order of the documents; None for their own.
        partial: whether the last sample may be shorter, so that nothing is left over.
    """

    def __init__(
        self,
        lengths: Numbers,
        sequence_length: int,
        key: tuple[str | int, ...] | None,
        *,
        partial: bool = False,
    ) -> None:
        self._lengths = lengths
        self._length = sequence_length
        self._key = key
        self._epoch = Recent(self._make_epoch)
        total = int(lengths.sum())
        self.samples = -(-total // sequence_length) if partial else total // sequence_length

    def content(self, epoch: int, position: int) -> Content:
        """As `Packer.content`."""
        documents, ends = self._epoch(epoch)
        begin = position * self._length
        end = min(begin + self._length, int(ends[-1]))
        first = int(np.searchsorted(ends, begin, side="right"))
        last = int(np.searchsorted(ends, end, side="left"))
        numbers = documents[first : last + 1]
        begins = ends[first : last + 1] - self._lengths[numbers]
        firsts = np.maximum(begin - begins, 0)
        counts = np.minimum(ends[first : last + 1], end) - begins - firsts
        ahead = bool(ends[last] > end)
        return Content(documents=numbers, firsts=firsts, counts=counts, ahead=ahead)

    def _make_epoch(self, epoch: int) -> tuple[Numbers, Numbers]:
        """The documents of an epoch in order, and where each ends in it."""
        count = len(self._lengths)
        documents = np.arange(count) if self._key is None else order(count, *self._key, epoch)
        return documents, np.cumsum(self._lengths[documents])


class DocumentPacker:
    """Whole documents, or pairs of them, one after the other while they fit, then padding.

    Which share a sample is settled once, in an order that the key gives; the order of the samples
    is every epoch's own. So all epochs have as many, whatever the documents' lengths.

    Args:
        counts: (documents,) int64, tokens taken of each, none for one left out; of a pair, which
            then is two documents in a row, of both or of neither.
        sequence_length: T; no document, or pair, is longer.
        key: of both orders; None for the documents' own.
        pairs: whether documents 2j and 2j + 1 stay together.
    """

    def __init__(
        self,
        counts: Numbers,
        sequence_length: int,
        key: tuple[str | int, ...] | None,
        *,
        pairs: bool = False,
    ) -> None:
        self._counts = counts
        self._key = key
        self._together = 2 if pairs else 1
        units = np.flatnonzero(counts[:: self._together])
        if key is not None:
            units = units[order(len(units), *key, "packing")]
        self._units: Numbers = units
        totals = counts.reshape(-1, self._together).sum(axis=1)[units]
        self._bounds = next_fit(totals, sequence_length)
        self._epoch = Recent(self._make_epoch)
        self.samples = len(self._bounds) - 1

    def content(self, epoch: int, position: int) -> Content:
        """As `Packer.content`."""
        number = self._epoch(epoch)[position]
        units = self._units[self._bounds[number] : self._bounds[number + 1]]
        inside = np.arange(self._together)
        documents = (units[:, None] * self._together + inside).reshape(-1)
        counts = self._counts[documents]
        return Content(documents=documents, firsts=np.zeros_like(counts), counts=counts)

    def _make_epoch(self, epoch: int) -> Numbers:
        """The numbers of an epoch's samples in order."""
        if self._key is None:
            return np.arange(self.samples)
        return order(self.samples, *self._key, epoch)


def next_fit(lengths: Numbers, capacity: int) -> Numbers:
    """Fill bins in order; what does not fit the bin any more begins the next.

    Args:
        lengths: (n,) int64, none above the capacity.
        capacity: of a bin.

    Returns:
        (bins + 1,) int64, with which length each bin begins, and n.
    """
    ends = np.cumsum(lengths)
    # Were a bin to begin at i, the next would begin at following[i].
    following = np.searchsorted(ends, ends - lengths + capacity, side="right").tolist()
    bounds, at = [0], 0
    while at < len(lengths):
        at = following[at]
        bounds.append(at)
    return np.array(bounds, np.int64)


def taken(
    lengths: Numbers, sequence_length: int, too_long: TooLong, *, pairs: bool, where: str
) -> Numbers:
    """How many tokens whole documents, or pairs of them, give to a sample.

    Args:
        lengths: (documents,) int64, in tokens.
        sequence_length: T, that a document or a pair must fit.
        too_long: whether one that does not is refused, cut, or left out. Of a pair, each half is
            cut to half of T.
        pairs: whether documents 2j and 2j + 1 stay together.
        where: their folder, for the message.

    Returns:
        (documents,) int64; 0 for those that are left out.

    Raises:
        DataError: one is too long and was to be refused; says how many are.
    """
    together = 2 if pairs else 1
    totals = lengths.reshape(-1, together).sum(axis=1)
    over = totals > sequence_length
    if over.any() and too_long == "error":
        count, number = int(over.sum()), int(np.argmax(totals))
        every = counted(len(totals), "pair" if pairs else "document")
        raise DataError(
            f"{count:,} of {every} {'is' if count == 1 else 'are'} longer than a sample of "
            f"{counted(sequence_length, 'token')}; the longest, number {number}, "
            f"has {int(totals[number]):,}",
            where=where,
            fix="raise data: sequence_length, or set too_long to truncate or skip",
        )
    limit = sequence_length // together if too_long == "truncate" else 0
    return np.where(np.repeat(over, together), np.minimum(lengths, limit), lengths)


def assemble(
    tokens: Numbers,
    learned: NDArray[np.bool_] | None,
    counts: Numbers,
    sequence_length: int,
    padding: int,
    *,
    pairs: Sequence[int] | Numbers = (),
    source: int = 0,
) -> Sample:
    """A sample of what was read.

    Args:
        tokens: (n,) int64, of all documents; one more than `counts` where the last one goes on.
        learned: (n,) bool, which of them are learned; None for all.
        counts: (k,) int64, how many of them are of each document.
        sequence_length: T, at least as many as all documents have.
        padding: the token that fills the rest.
        pairs: of preferences the pairs' numbers in their data set.
        source: the number of the data set in the mixture.
    """
    ends = np.cumsum(counts)
    filled = int(ends[-1])
    labels = np.full(sequence_length, IGNORED, np.int64)
    following = tokens[1:] if learned is None else np.where(learned, tokens, IGNORED)[1:]
    labels[: len(following)] = following
    if len(tokens) == filled:
        labels[filled - 1] = IGNORED
    labels[ends[:-1] - 1] = IGNORED
    row = np.full(sequence_length, padding, np.int64)
    row[:filled] = tokens[:filled]
    if filled < sequence_length:
        counts = np.append(counts, sequence_length - filled)
        ends = np.append(ends, sequence_length)
    return Sample(
        tokens=row,
        labels=labels,
        positions=np.arange(sequence_length) - np.repeat(ends - counts, counts),
        documents=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        pairs=np.array(pairs, np.int64),
        source=source,
    )
