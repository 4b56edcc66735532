"""Records from files: texts, lines of JSON and Parquet, in folders or alone, packed or not."""

import codecs
import gzip
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from tensorsurgeon.checkpoint.strict_json import StrictJSONError, parse_object
from tensorsurgeon.errors import DataError, fix_for, shortened
from tensorsurgeon.specs import size_text
from tensorsurgeon.trainer.data.fields import FormatName, fix_for_missing

Split = Literal["file", "blank-lines", "lines"]
"""What a document of a text file is: all of it, what stands between blank lines, or a line."""

LINE_LIMIT = 64 << 20
"""Longest line read, and largest file read whole, in bytes."""

_ROWS = 256
"""Rows of Parquet that are held at a time."""

_LINES = {".jsonl", ".ndjson"}
_TEXTS = {".htm", ".html", ".markdown", ".md", ".rst", ".tex", ".text", ".txt"}
_PARQUET = {".parquet", ".pq"}
_TABLES = {".csv", ".tsv"}

_ONE_A_LINE = "write one JSON object a line"
_AT_COLUMN = re.compile(r" at line 1 column ([0-9]+)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One text with what belongs to it, as it was read.

    Attributes:
        where: the file and the line or row, for messages.
        fields: its values by name; of a text file there is one.
    """

    where: str
    fields: Mapping[str, Any]


@dataclass(kw_only=True)
class Files:
    """The files to read, and how far that is.

    Attributes:
        paths: the files, in the order they are read.
        nbytes: of all of them on the disk.
        left_out: how many files of folders are not read, by suffix.
        done: bytes read so far.
    """

    paths: tuple[Path, ...]
    nbytes: int
    left_out: dict[str, int]
    done: int = field(default=0)


def find_files(inputs: Sequence[Path]) -> Files:
    """Files named, and those in folders, at any depth and in the order of their names.

    Of a folder files of a known suffix are taken, and none that is hidden; a file that is named is
    taken whatever it is called, but for tables, whose rows would be one text.

    Raises:
        DataError: one is not there, or twice, or a table, or nothing is there.
    """
    paths: list[Path] = []
    left_out: dict[str, int] = {}
    for path in inputs:
        if path.is_dir():
            paths += _in_folder(path, left_out)
        elif path.is_file():
            if _suffix(path) in _TABLES:
                what = "is a table, and would be read as one text with all its commas"
                fix = "write its rows as lines of JSON (.jsonl) or Parquet; or call it .txt"
                raise DataError(what, where=str(path), fix=fix)
            paths.append(path)
        elif path.exists():
            raise DataError("is neither a file nor a folder", where=str(path))
        else:
            raise DataError("is not there", where=str(path))
    if not paths:
        known = ", ".join(sorted(_TEXTS | _LINES | _PARQUET))
        where = ", ".join(map(str, inputs))
        raise DataError("no file to read", where=where, fix=f"known: {known}, and each with .gz")
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            fix = "name it once; a source's weight makes it count for more"
            raise DataError("is given twice", where=str(path), fix=fix)
        seen.add(path.resolve())
    return Files(paths=tuple(paths), nbytes=sum(map(_size, paths)), left_out=left_out)


def read_records(
    files: Files,
    fields: Sequence[str],
    *,
    optional: Sequence[str] = (),
    form: FormatName = "text",
    split: Split | None,
) -> Iterator[Record]:
    """Every record of the files, in order.

    Args:
        files: where from; `done` is kept up to date.
        fields: what is used of a record; Parquet is read for these columns alone.
        optional: those of them that may be missing.
        form: what records are said to be, for what is told of one that is something else.
        split: what of a text file is a document; None where texts are not what is wanted.

    Raises:
        DataError: a file cannot be read or is not what its name says; names file and line.
    """
    for path in files.paths:
        before = files.done
        suffix = _suffix(path)
        with _explained(path):
            if suffix in _LINES:
                yield from _lines_of_json(path, files)
            elif suffix in _PARQUET:
                yield from _rows(path, fields, optional, form)
            elif split is None or suffix == ".json":
                raise DataError(
                    "is neither lines of JSON nor Parquet",
                    where=str(path),
                    fix=f"{_ONE_A_LINE}, in a file that ends in .jsonl",
                )
            else:
                yield from _documents(path, fields[0], split, files)
        files.done = before + _size(path)


def text_of(record: Record, name: str, form: FormatName = "text") -> str:
    """A field that must be a text; null is an empty one.

    Args:
        record: the record.
        name: the field.
        form: what the record is said to be.

    Raises:
        DataError: it is missing, or something else.
    """
    if name not in record.fields:
        texts = [other for other, value in record.fields.items() if isinstance(value, str)]
        fix = fix_for_missing(name, form, record.fields, texts)
        raise DataError(f"has no field '{name}'", where=record.where, fix=fix)
    value = record.fields[name]
    if value is None:
        return ""
    if not isinstance(value, str):
        what = f"field '{name}' is not a text, but {type(value).__name__}"
        raise DataError(what, where=record.where)
    return value


def _in_folder(folder: Path, left_out: dict[str, int]) -> list[Path]:
    def fail(error: OSError) -> None:
        what = f"cannot be read: {error.strerror}"
        raise DataError(what, where=str(error.filename), fix=fix_for(error)) from None

    found = []
    for root, inner, names in os.walk(folder, onerror=fail):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            path = Path(root, name)
            if name.startswith(".") or not path.is_file():
                continue
            suffix = _suffix(path)
            if suffix in _TEXTS | _LINES | _PARQUET:
                found.append(path)
            else:
                left_out[suffix] = left_out.get(suffix, 0) + 1
    return found


def _suffix(path: Path) -> str:
    """The suffix that tells what is in a file, without .gz."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _size(path: Path) -> int:
    with _explained(path):
        return path.stat().st_size


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What can go wrong while a file is read, as an error that names it."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        what = f"is not packed by gzip, or cut short: {error}"
        raise DataError(what, where=str(path), fix="download it again") from None
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise DataError(what, where=str(path), fix=fix_for(error)) from None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The file, and what is to be read of it, unpacked where it is packed."""
    with path.open("rb") as raw:
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield raw, unpacked  # type: ignore[misc]
        else:
            yield raw, raw


def _lines(path: Path, files: Files) -> Iterator[tuple[int, bytes]]:
    """Lines without their ends and without a byte order mark, numbered from 1."""
    before = files.done
    with _opened(path) as (raw, stream):
        number = 0
        while line := stream.readline(LINE_LIMIT + 1):
            number += 1
            files.done = before + raw.tell()
            if len(line) > LINE_LIMIT:
                what = f"is longer than {size_text(LINE_LIMIT)}"
                raise DataError(what, where=f"{path}:{number}")
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            yield number, line.rstrip(b"\r\n")


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        encoding = "UTF-16" if wide else "LATIN1"
        fix = f"convert it from its encoding, as with iconv -f {encoding} -t UTF-8"
        raise DataError(f"is not UTF-8 at byte {error.start}", where=where, fix=fix) from None


def _documents(path: Path, name: str, split: Split, files: Files) -> Iterator[Record]:
    if split == "file":
        with _opened(path) as (_, stream):
            data = stream.read(LINE_LIMIT + 1)
        if len(data) > LINE_LIMIT:
            raise DataError(
                f"is larger than {size_text(LINE_LIMIT)}, which is too much for one document",
                where=str(path),
                fix="make documents of its parts, with --split blank-lines",
            )
        text = _decoded(data.removeprefix(codecs.BOM_UTF8), str(path))
        yield Record(where=str(path), fields={name: text})
        return
    lines = _lines(path, files)
    for number, part in lines if split == "lines" else _paragraphs(lines):
        where = f"{path}:{number}"
        yield Record(where=where, fields={name: _decoded(part, where)})


def _paragraphs(lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Runs of lines that are not blank, with the number of their first."""
    begin, run = 0, list[bytes]()
    for number, line in lines:
        if line.strip():
            begin = begin if run else number
            run.append(line)
        elif run:
            yield begin, b"\n".join(run)
            run = []
    if run:
        yield begin, b"\n".join(run)


def _lines_of_json(path: Path, files: Files) -> Iterator[Record]:
    for number, line in _lines(path, files):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            yield Record(where=where, fields=parse_object(line))
        except StrictJSONError as problem:
            _decoded(line, where)
            what = _AT_COLUMN.sub("", str(problem))
            column = "".join(f":{number}" for number in _AT_COLUMN.findall(str(problem)))
            fix = _ONE_A_LINE if column or "where an object is" in what else ""
            raise DataError(what, where=where + column, fix=fix) from None


def _rows(
    path: Path, fields: Sequence[str], optional: Sequence[str], form: FormatName
) -> Iterator[Record]:
    try:
        import pyarrow as arrow  # type: ignore[import-untyped]
        from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]
    except ImportError:
        raise DataError(
            "reading Parquet needs pyarrow, which is not installed",
            where=str(path),
            fix="pip install 'tensorsurgeon[train]'",
        ) from None
    try:
        with path.open("rb") as file:
            table = ParquetFile(file)
            there = table.schema_arrow.names
            for name in fields:
                if name not in there and name not in optional:
                    fix = fix_for_missing(name, form, there, there)
                    raise DataError(f"has no column '{name}'", where=str(path), fix=fix)
            columns = [name for name in fields if name in there]
            number = 0
            for batch in table.iter_batches(batch_size=_ROWS, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield Record(where=f"{path}, row {number}", fields=row)
    except (arrow.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of Arrow
            raise
        what = f"is no Parquet file, or damaged: {shortened(str(error).strip(), 200)}"
        raise DataError(what, where=str(path)) from None
