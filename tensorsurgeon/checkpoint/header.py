"""The safetensors header: parsed strictly, and written.

A file is an unsigned 64-bit little-endian N, N bytes of JSON, then the tensors' bytes. The rules
kept here are the format's: the JSON begins with `{` and may end in spaces; each entry has exactly
`dtype`, `shape` and `data_offsets`; offsets count from the end of the header, and the tensors tile
the rest of the file without a hole or an overlap. A header is a stranger's claim until all of it
was checked against the size of the file, so nothing of a size it names is allocated before; and
it is read tensor by tensor, so that a header meant to fill the memory is refused at its first lie.
"""

import io
import json
import math
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from tensorsurgeon.checkpoint.json_scan import NAME_SHOWN, Scanner
from tensorsurgeon.checkpoint.strict_json import StrictJSONError
from tensorsurgeon.errors import CheckpointError, HeaderError, fix_for, printable, shortened
from tensorsurgeon.specs import DType, StoredTensor, TensorSpec

HEADER_LIMIT = 25_000_000
"""Largest header read, in bytes; a model of 100,000 tensors needs half of it."""

TENSOR_LIMIT = 200_000
"""Most tensors of one file; models of a trillion parameters have as many, in sixty files."""

METADATA_LIMIT = 200_000
"""Most keys of the metadata, which some writers give each tensor one of."""

ENTRY_LIMIT = 4096
"""Longest entry of a tensor, in bytes; the longest shape and offsets take 1,500."""

RANK_LIMIT = 64
ALIGNMENT = 4096
"""Written headers are padded so that the data starts on a page, which makes copies cheaper."""

_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}
_LFS_POINTER = b"version https://git-lfs"


def read_header(path: Path, *, limit: int = HEADER_LIMIT) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file, in the order of their bytes.

    Args:
        path: the file.
        limit: largest header accepted, in bytes.

    Raises:
        CheckpointError: the file cannot be opened, or is a Git LFS pointer.
        HeaderError: the file breaks a rule of the format; names the tensor and the rule.
    """
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise CheckpointError("is not a regular file", where=str(path))
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return _tensors(file, size, path, limit)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise CheckpointError(what, where=str(path), fix=fix_for(error)) from None


def parse_start(start: bytes, size: int, path: Path) -> dict[str, StoredTensor]:
    """The same of a file that is elsewhere.

    Args:
        start: its header with the length before it; or less, where that is no header.
        size: of the whole file, in bytes.
        path: where it will be.

    Raises:
        HeaderError: as `read_header`.
    """
    return _tensors(io.BytesIO(start), size, path, HEADER_LIMIT)


def encode_header(specs: Iterable[TensorSpec]) -> bytes:
    """The header, length prefix included, of a file that holds `specs` in this order."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for spec in specs:
        begin, end = end, end + spec.nbytes
        entries[spec.name] = {
            "dtype": spec.dtype.value,
            "shape": spec.shape,
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _tensors(file: BinaryIO, size: int, path: Path, limit: int) -> dict[str, StoredTensor]:
    raw = _read_json(file, size, path, limit)
    try:
        tensors = _parse_header(raw, path)
    except StrictJSONError as problem:
        _fail(path, f"header: {problem}")
    start = 8 + len(raw)
    # Tensors without elements share an offset with their neighbour and come before it.
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.spec.nbytes))
    _check_tiling(tensors, path, start, size)
    return {tensor.spec.name: tensor for tensor in tensors}


def _read_json(file: BinaryIO, size: int, path: Path, limit: int) -> bytes:
    prefix = file.read(8)
    if _LFS_POINTER.startswith(prefix) and len(prefix) == 8:
        raise CheckpointError(
            "is a Git LFS pointer, not the file itself",
            where=str(path),
            fix="run 'git lfs pull' in that folder, or download it again with 'hf download'",
        )
    if len(prefix) < 8:
        _fail(path, f"is {size} bytes long; a safetensors file has at least 8")
    (length,) = struct.unpack("<Q", prefix)
    if length > size - 8:
        _fail(
            path,
            f"header of {length} bytes at offset 8 does not fit the file of {size} bytes",
            fix="the file is cut short or no safetensors file: download it again",
        )
    if length > limit:
        _fail(path, f"header of {length} bytes at offset 8 is over the limit of {limit}")
    raw = file.read(length)
    if len(raw) != length:
        _fail(path, "changed while its header was read")
    if not raw.startswith(b"{"):
        _fail(path, f"header of {length} bytes at offset 8 does not begin with '{{'")
    return raw


def _parse_header(raw: bytes, path: Path) -> list[StoredTensor]:
    tensors = []
    scan = Scanner(raw, start=8)
    if raw.count(b'"data_offsets"') > TENSOR_LIMIT:  # before seconds are spent on reading them
        _fail(path, f"header of {len(raw)} bytes at offset 8 has more than {TENSOR_LIMIT} tensors")
    for name in scan.members(TENSOR_LIMIT + 1):
        if name == "__metadata__":
            _check_metadata(scan, path)
            continue
        place = scan.place
        try:
            entry = scan.value(ENTRY_LIMIT)
            tensors.append(_parse_entry(name, entry, path, 8 + len(raw)))
        except StrictJSONError as problem:
            _fail(path, f"tensor '{shortened(name, NAME_SHOWN)}': {problem}")
        except _BrokenRuleError as broken:
            _fail(path, f"tensor '{shortened(name, NAME_SHOWN)}': {broken} (entry at byte {place})")
    scan.end()
    return tensors


def _check_metadata(scan: Scanner, path: Path) -> None:
    try:
        for key in scan.members(METADATA_LIMIT):
            if not scan.comes(b'"'):
                scan.fail(f"'{shortened(key, NAME_SHOWN)}' is not a string")
            scan.string()
    except StrictJSONError as problem:
        _fail(path, f"__metadata__ {problem}")


class _BrokenRuleError(ValueError):
    """Which rule of the format an entry breaks."""


def _parse_entry(name: str, entry: object, path: Path, start: int) -> StoredTensor:
    if not isinstance(entry, dict) or entry.keys() != _ENTRY_KEYS:
        raise _BrokenRuleError("the entry must have exactly dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    try:
        dtype = DType[entry["dtype"]]
    except (KeyError, TypeError):
        said = shortened(repr(entry["dtype"]))
        raise _BrokenRuleError(f"unknown dtype {said}") from None
    if not _whole_numbers(shape):
        raise _BrokenRuleError("the shape is not a list of whole numbers")
    if len(shape) > RANK_LIMIT:
        raise _BrokenRuleError(f"rank {len(shape)} is over {RANK_LIMIT}")
    if not _whole_numbers(offsets) or len(offsets) != 2:
        raise _BrokenRuleError("data_offsets are not two whole numbers")
    begin, end = offsets
    if end < begin:
        raise _BrokenRuleError(f"offsets {begin} to {end} are reversed")
    if math.prod(filter(None, shape)) >= 1 << 64:
        raise _BrokenRuleError("the shape has more elements than 64 bits can count")
    spec = TensorSpec(name=name, dtype=dtype, shape=tuple(shape))
    if spec.elements * dtype.bits % 8:
        raise _BrokenRuleError(
            f"{spec.elements} elements of {dtype.bits} bits do not fill whole bytes"
        )
    nbytes = spec.nbytes
    if end - begin != nbytes:
        raise _BrokenRuleError(
            f"offsets {begin} to {end} hold {end - begin} bytes, the shape needs {nbytes}"
        )
    return StoredTensor(spec=spec, path=path, offset=start + begin)


def _whole_numbers(value: object) -> bool:
    if not isinstance(value, list) or not set(map(type, value)) <= {int}:
        return False
    return not value or (min(value) >= 0 and max(value) < 1 << 64)


def _check_tiling(tensors: list[StoredTensor], path: Path, start: int, size: int) -> None:
    at = start
    for tensor in tensors:
        if tensor.offset != at:
            kind = "a hole" if tensor.offset > at else "an overlap"
            name = shortened(tensor.spec.name, NAME_SHOWN)
            _fail(path, f"tensor '{name}': {kind} in the data at offset {at - start}")
        at += tensor.spec.nbytes
    if at > size:
        last = shortened(tensors[-1].spec.name, NAME_SHOWN)
        _fail(
            path,
            f"is cut short: {size} bytes, but its tensors end at {at} (the last is '{last}')",
            fix="download the file again",
        )
    if at < size:
        _fail(path, f"has {size - at} bytes after its last tensor, at offset {at}")


def _fail(path: Path, rule: str, fix: str = "") -> NoReturn:
    raise HeaderError(printable(rule), where=str(path), fix=fix)
