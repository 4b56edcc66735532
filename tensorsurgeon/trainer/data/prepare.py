"""Texts to token shards: read, made into tokens, held out or not, and written whole."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from tensorsurgeon.errors import DataError
from tensorsurgeon.trainer.counted import counted
from tensorsurgeon.trainer.data.dataset_records import DatasetName, read_dataset
from tensorsurgeon.trainer.data.fields import FormatName
from tensorsurgeon.trainer.data.formats import FIXES, Format, content_of, find_format
from tensorsurgeon.trainer.data.index import TokenIndex
from tensorsurgeon.trainer.data.shard_writer import SHARD_SIZE, ShardWriter, writing_shards
from tensorsurgeon.trainer.data.texts import Files, Record, Split, find_files, read_records
from tensorsurgeon.trainer.data.tokenizer import load_tokenizer

DOCUMENT_LIMIT = 8 << 20
"""Longest record, in characters: a tokenizer takes some 170 bytes of memory for each."""

_BATCH_CHARACTERS = 1 << 20
_BATCH_RECORDS = 1024

Told = Callable[[int, int, int], None]
"""Called after each batch with bytes read, bytes in all (0 where that is not known), and tokens."""


@dataclass(frozen=True, kw_only=True)
class HeldOutPart:
    """What is kept from training.

    Attributes:
        fraction: of the records, between 0 and 1.
        output: the folder to make.
    """

    fraction: float
    output: Path


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Records that are left out for one reason.

    Attributes:
        reason: why.
        count: how many.
        first: file and line of the first.
    """

    reason: str
    count: int
    first: str

    def __str__(self) -> str:
        place = f"{'first ' * (self.count > 1)}at {self.first}"
        return f"left out {counted(self.count, 'record')}: {self.reason}, {place}"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What was made.

    Attributes:
        index: of the folder that is trained on.
        held_out: of the one that is not.
        skipped: records left out, in the order of the reasons.
        left_out: files of folders that were not read, by suffix.
        seconds: wall time since the first text was made tokens of, which is after libraries load.
    """

    index: TokenIndex
    held_out: TokenIndex | None
    skipped: tuple[Skipped, ...]
    left_out: dict[str, int]
    seconds: float


def prepare(
    inputs: Sequence[Path],
    *,
    tokenizer: Path,
    output: Path,
    form: FormatName = "text",
    dataset: DatasetName | None = None,
    field: str | None = None,
    split: Split = "file",
    held_out: HeldOutPart | None = None,
    seed: int = 0,
    shard_size: int = SHARD_SIZE,
    overwrite: bool = False,
    told: Told | None = None,
) -> Prepared:
    """Make token shards of files and a dataset, in one process; the tokenizer uses all processors.

    The same inputs in the same order give the same bytes. Which records are held out is decided for
    each by its content and the seed alone, so that it stays so when others are added, and one that
    occurs twice is held out twice or not at all.

    Args:
        inputs: files and folders.
        tokenizer: a checkpoint's folder.
        output: the folder to make.
        form: what the records are.
        dataset: read after the files.
        field: where the text is, or the messages; by default `text` and `messages`.
        split: what of a text file is a document.
        held_out: what is kept from training.
        seed: of the choice of what is held out.
        shard_size: bytes of tokens and answers after which a shard is written.
        overwrite: whether token shards that are there may be replaced.
        told: told how far it is.

    Raises:
        BusyError: another run is writing there.
        DataError: the tokenizer or a text cannot be used, or nothing would be learned; says where.
        OutputError: writing failed.
        PlanError: a folder cannot be made there, or is there already.
    """
    loaded = load_tokenizer(tokenizer)
    made = find_format(form, loaded, field)
    files = find_files(inputs) if inputs or dataset is None else None
    records = _records(files, dataset, made, form, split if form == "text" else None)
    with ExitStack() as stack:

        def open_writer(final: Path) -> ShardWriter:
            return stack.enter_context(
                writing_shards(
                    final,
                    kind=made.kind,
                    tokenizer=loaded.digest,
                    vocabulary=loaded.vocabulary,
                    end_of_document=loaded.end,
                    sources=[*inputs, tokenizer],
                    shard_size=shard_size,
                    overwrite=overwrite,
                )
            )

        def writer_of(record: Record) -> ShardWriter:
            if aside is None or held_out is None:
                return kept
            chosen = _is_chosen(content_of(made, record), held_out.fraction, seed)
            return aside if chosen else kept

        kept = open_writer(output)
        aside = open_writer(held_out.output) if held_out else None
        known = files if dataset is None else None
        writing = _Writing(form=made, writer_of=writer_of, files=known, told=told)
        writing.write(records)
        index, index_aside = kept.finish(), aside.finish() if aside else None
        _check_anything(output, index, index_aside, writing.skipped)
        if held_out is not None and index_aside is not None:
            _check_anything(held_out.output, index_aside, index, writing.skipped)
    return Prepared(
        index=index,
        held_out=index_aside,
        skipped=writing.skipped,
        left_out=files.left_out if files else {},
        seconds=time.monotonic() - writing.began,
    )


def _records(
    files: Files | None,
    dataset: DatasetName | None,
    made: Format,
    form: FormatName,
    split: Split | None,
) -> Iterator[Record]:
    if files is not None:
        yield from read_records(files, made.fields, optional=made.optional, form=form, split=split)
    if dataset is not None:
        yield from read_dataset(dataset)


@dataclass(kw_only=True)
class _Writing:
    """Every record's documents on their way to the shards.

    Attributes:
        form: what the records are.
        writer_of: which shards a record's documents go to.
        files: how far they are read; None where that cannot be known.
        told: told how far it is.
        began: when the first became tokens, in seconds on the monotonic clock.
    """

    form: Format
    writer_of: Callable[[Record], ShardWriter]
    files: Files | None
    told: Told | None
    _skipped: dict[str, Skipped] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Records that have no documents, in the order of the reasons."""
        return tuple(self._skipped[reason] for reason in sorted(self._skipped))

    def write(self, records: Iterable[Record]) -> None:
        """Write the documents of all records that have some."""
        tokens = 0
        for number, batch in enumerate(_batches(records, self.form.fields)):
            if number == 0:
                self.began = time.monotonic()
            for record, made in zip(batch, self.form.encode(batch), strict=True):
                if isinstance(made, str):
                    self._skip(made, record)
                else:
                    tokens += sum(len(document.tokens) for document in made)
                    self.writer_of(record).add(made)
            if self.told is not None:
                read = (self.files.done, self.files.nbytes) if self.files else (0, 0)
                self.told(*read, tokens)

    def _skip(self, reason: str, record: Record) -> None:
        before = self._skipped.get(reason, Skipped(reason=reason, count=0, first=record.where))
        self._skipped[reason] = replace(before, count=before.count + 1)


def _check_anything(
    final: Path, index: TokenIndex, other: TokenIndex | None, skipped: Sequence[Skipped]
) -> None:
    """Whether a folder gets a document.

    Args:
        final: the folder.
        index: what is in it.
        other: what is in the one on the other side of --held-out; None without that.
        skipped: records that are left out.

    Raises:
        DataError: it does not; says why, and what to do about just that.
    """
    if index.documents:
        return
    if other is not None and other.documents:
        what = "would be empty: all that was read is on the other side of --held-out"
        fix = "give more texts, or --held-out another fraction"
    elif skipped:
        what = f"would be empty: {'; '.join(map(str, skipped))}"
        fix = FIXES[max(skipped, key=lambda some: some.count).reason]
    else:
        what, fix = "would be empty: there is no record in what was read", "give texts"
    raise DataError(what, where=str(final), fix=fix)


def _batches(records: Iterable[Record], fields: Sequence[str]) -> Iterator[list[Record]]:
    """Records to be made tokens of at once: few enough for the memory, many for all processors."""
    batch: list[Record] = []
    characters = 0
    for record in records:
        length = sum(_length(record.fields.get(name)) for name in fields)
        if length > DOCUMENT_LIMIT:
            raise DataError(
                f"has {length} characters, over the limit of {DOCUMENT_LIMIT} for one document",
                where=record.where,
                fix="make several of it; of a text file with --split blank-lines",
            )
        if batch and (characters + length > _BATCH_CHARACTERS or len(batch) == _BATCH_RECORDS):
            yield batch
            batch, characters = [], 0
        batch.append(record)
        characters += length
    if batch:
        yield batch


def _length(value: object) -> int:
    """Characters of a text, or of all texts in a list of messages."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_length, value.values()))
    return sum(map(_length, value)) if isinstance(value, list) else 0


def _is_chosen(content: bytes, fraction: float, seed: int) -> bool:
    key = seed.to_bytes(8, "little", signed=True)
    digest = hashlib.blake2b(content, digest_size=8, key=key, person=b"held out").digest()
    return int.from_bytes(digest, "little") < fraction * 2.0**64
