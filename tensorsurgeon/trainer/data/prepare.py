"""Texts to token shards: read, made into tokens, held out or not, and written whole."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tensorsurgeon.errors import DataError
from tensorsurgeon.trainer.data.dataset_records import DatasetName, read_dataset
from tensorsurgeon.trainer.data.formats import Format, FormatName, content_of, find_format
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
class Prepared:
    """What was made.

    Attributes:
        index: of the folder that is trained on.
        held_out: of the one that is not.
        skipped: records left out, by reason.
        left_out: files of folders that were not read, by suffix.
        seconds: wall time.
    """

    index: TokenIndex
    held_out: TokenIndex | None
    skipped: dict[str, int]
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
    began = time.monotonic()
    loaded = load_tokenizer(tokenizer)
    made = find_format(form, loaded, field)
    files = find_files(inputs) if inputs or dataset is None else None
    records = _records(files, dataset, made, split if form == "text" else None)
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
        skipped = _write(records, made, writer_of, known, told)
        index = _finished(kept, output, skipped)
        index_aside = _finished(aside, held_out.output, skipped) if held_out and aside else None
    return Prepared(
        index=index,
        held_out=index_aside,
        skipped=dict(skipped),
        left_out=files.left_out if files else {},
        seconds=time.monotonic() - began,
    )


def _records(
    files: Files | None, dataset: DatasetName | None, form: Format, split: Split | None
) -> Iterator[Record]:
    if files is not None:
        yield from read_records(files, form.fields, optional=form.optional, split=split)
    if dataset is not None:
        yield from read_dataset(dataset)


def _write(
    records: Iterable[Record],
    form: Format,
    writer_of: Callable[[Record], ShardWriter],
    files: Files | None,
    told: Told | None,
) -> Counter[str]:
    """Write every record's documents; counts those that have none by the reason."""
    skipped: Counter[str] = Counter()
    tokens = 0
    for batch in _batches(records, form.fields):
        for record, made in zip(batch, form.encode(batch), strict=True):
            if isinstance(made, str):
                skipped[made] += 1
            else:
                tokens += sum(len(document.tokens) for document in made)
                writer_of(record).add(made)
        if told is not None:
            told(files.done if files else 0, files.nbytes if files else 0, tokens)
    return skipped


def _finished(writer: ShardWriter, final: Path, skipped: Counter[str]) -> TokenIndex:
    index = writer.finish()
    if not index.documents:
        why = ", ".join(f"{count} with {reason}" for reason, count in sorted(skipped.items()))
        raise DataError(
            "would be empty" + (f"; left out: {why}" if why else ""),
            where=str(final),
            fix="give more texts, or hold out another fraction",
        )
    return index


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
