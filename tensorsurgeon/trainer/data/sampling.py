"""The samples of a run, and the held-out ones: each found by its number alone, and read.

Sample i of a run depends on the sources, their weights, the seed, the packing and i. Nothing is
remembered from one to the next but what saves work, so the ranks may share samples out as they
like, and a resumed run goes on with the sample that comes next. Any thread may read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tensorsurgeon.errors import DataError
from tensorsurgeon.trainer.counted import counted
from tensorsurgeon.trainer.data.mixture import Mixture
from tensorsurgeon.trainer.data.packing import (
    DocumentPacker,
    Numbers,
    Packer,
    Packing,
    Sample,
    StreamPacker,
    TooLong,
    assemble,
    taken,
)
from tensorsurgeon.trainer.data.shards import TokenShards

_LOOKED_AT = 1 << 10
"""Documents looked at together for a label; the first of them mostly have one."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One data set of a mixture.

    Attributes:
        name: tells it from others in messages; nothing that is learned depends on it.
        shards: its tokens.
        weight: its share of the samples, relative to the others'.
    """

    name: str
    shards: TokenShards
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What of a data set is never learned.

    Attributes:
        cut: documents, or pairs, that are cut to the length of a sample.
        skipped: those that are left out: too long, or cut before anything that is learned.
    """

    cut: int
    skipped: int


class Dataset:
    """The samples that a run learns from.

    Args:
        sources: at most 32, with names of their own; preferences are alone.
        sequence_length: T, positions of a sample.
        seed: of all orders.
        packing: `stream` cuts the documents of an epoch into samples, `documents` fills samples
            with whole documents or pairs.
        too_long: what becomes of a document, or pair, longer than a sample, where they stay whole.

    Attributes:
        left_out: by name of the source, what is never learned.

    Raises:
        DataError: the sources do not fit each other or the packing, one has less than one sample
            or no label in any, or a document is too long.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        sequence_length: int,
        seed: int,
        packing: Packing,
        too_long: TooLong = "error",
    ) -> None:
        _check_sources(sources)
        self.sources = tuple(sources)
        identities = [source.shards.identity for source in sources]
        self._mixture = Mixture([source.weight for source in sources], seed)
        self._readers = [
            _Reader(
                source.shards,
                sequence_length,
                packing,
                too_long,
                # The same data in two sources is read in two orders.
                key=(seed, identities[number], identities[:number].count(identities[number])),
                number=number,
            )
            for number, source in enumerate(sources)
        ]
        self.left_out: dict[str, LeftOut] = {
            source.name: reader.left_out
            for source, reader in zip(sources, self._readers, strict=True)
        }

    def sample(self, index: int) -> Sample:
        """Sample `index` of the run.

        Raises:
            DataError: a shard cannot be read any more, or is damaged.
        """
        source, within = self._mixture.place(index)
        reader = self._readers[source]
        return reader.read(*divmod(within, reader.samples))

    def samples_per_epoch(self, name: str) -> int:
        """How many samples show everything a source has, but what is cut off or left out."""
        return self._reader(name).samples

    def epochs(self, samples: int) -> dict[str, float]:
        """How often the first `samples` of a run show each source, by name."""
        counts = self._mixture.before(samples)
        return {
            source.name: float(count) / reader.samples
            for source, reader, count in zip(self.sources, self._readers, counts, strict=True)
        }

    def _reader(self, name: str) -> "_Reader":
        return self._readers[[source.name for source in self.sources].index(name)]


class HeldOut:
    """The samples that a loss is measured on: documents in their own order, every token once.

    The last sample may be padded, so that a data set smaller than one sample is one.

    Args:
        shards: the tokens.
        sequence_length: T.
        packing: as of `Dataset`.
        too_long: as of `Dataset`.
        limit: at most this many samples, the first; None for all.

    Raises:
        DataError: as `Dataset`.
    """

    def __init__(
        self,
        shards: TokenShards,
        *,
        sequence_length: int,
        packing: Packing,
        too_long: TooLong = "error",
        limit: int | None = None,
    ) -> None:
        self._reader = _Reader(shards, sequence_length, packing, too_long, key=None, number=0)
        self._samples = self._reader.samples if limit is None else min(limit, self._reader.samples)
        self.left_out = self._reader.left_out

    def __len__(self) -> int:
        return self._samples

    def sample(self, index: int) -> Sample:
        """Sample `index`, from 0 on.

        Raises:
            DataError: a shard cannot be read any more, or is damaged.
        """
        if not 0 <= index < self._samples:
            raise IndexError(f"sample {index} of {self._samples}")
        return self._reader.read(0, index)


class _Reader:
    """One data set: its packer, and the samples read as the packer says."""

    def __init__(
        self,
        shards: TokenShards,
        sequence_length: int,
        packing: Packing,
        too_long: TooLong,
        *,
        key: tuple[int, str, int] | None,
        number: int,
    ) -> None:
        self._shards = shards
        self._length = sequence_length
        self._number = number
        self._pairs = shards.index.kind == "preference"
        self.left_out = LeftOut(cut=0, skipped=0)
        if packing == "stream":
            self._packer: Packer = self._stream(key)
        else:
            self._packer = self._whole(too_long, key)
        self.samples = self._packer.samples

    def _stream(self, key: tuple[int, str, int] | None) -> Packer:
        folder, kind = str(self._shards.folder), self._shards.index.kind
        if kind != "text":
            what = f"holds {kind} documents, which stay whole, and cannot be cut as a stream"
            raise DataError(what, where=folder, fix="set data: packing to documents")
        packer = StreamPacker(self._shards.lengths, self._length, key, partial=key is None)
        if not packer.samples:
            tokens = counted(self._shards.index.tokens, "token")
            raise DataError(
                f"has {tokens}, less than one sample of {self._length}",
                where=folder,
                fix="lower data: sequence_length, prepare more tokens, or set packing to documents",
            )
        return packer

    def _whole(self, too_long: TooLong, key: tuple[int, str, int] | None) -> Packer:
        shards, lengths = self._shards, self._shards.lengths
        folder = str(shards.folder)
        counts = taken(lengths, self._length, too_long, pairs=self._pairs, where=folder)
        together = 2 if self._pairs else 1
        cut = np.flatnonzero((counts < lengths) & (counts > 0))
        learns = shards.learns_within(cut, counts[cut])
        for inside in range(together):  # of a pair, both are useless without the other
            counts[cut[~learns] // together * together + inside] = 0
        by_unit = counts.reshape(-1, together), lengths.reshape(-1, together)
        skipped = (by_unit[0] == 0).any(axis=1)
        shorter = (by_unit[0] < by_unit[1]).any(axis=1) & ~skipped
        self.left_out = LeftOut(cut=int(shorter.sum()), skipped=int(skipped.sum()))
        if not (counts[cut[learns]].any() or self._learns(counts)):
            raise DataError(
                f"has nothing left to learn in samples of {counted(self._length, 'token')}",
                where=folder,
                fix="raise data: sequence_length, or prepare more tokens",
            )
        return DocumentPacker(counts, self._length, key, pairs=self._pairs)

    def _learns(self, counts: Numbers) -> bool:
        """Whether any token is a label, of as many of each document as are taken."""
        taken_of = np.flatnonzero(counts)
        parts = np.split(taken_of, range(_LOOKED_AT, len(taken_of), _LOOKED_AT))
        return any(self._shards.learns_within(part, counts[part]).any() for part in parts)

    def read(self, epoch: int, position: int) -> Sample:
        content = self._packer.content(epoch, position)
        tokens, learned = self._shards.read(content.pieces())
        return assemble(
            tokens,
            learned,
            content.counts,
            self._length,
            self._shards.index.end_of_document,
            pairs=content.documents[::2] // 2 if self._pairs else (),
            source=self._number,
        )


def _check_sources(sources: Sequence[Source]) -> None:
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise DataError(f"two sources have the same name: {', '.join(names)}")
    kinds = {source.shards.index.kind: source.name for source in sources}
    if "preference" in kinds and len(kinds) > 1:
        said = ", ".join(f"'{name}' holds {kind}" for kind, name in sorted(kinds.items()))
        raise DataError(f"preferences cannot be mixed with others: {said}")
