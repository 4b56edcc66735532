"""A checkpoint folder: its config, its tensors, and the small files beside them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tensorsurgeon.checkpoint.header import read_header
from tensorsurgeon.checkpoint.identity import FileIdentity, identify
from tensorsurgeon.checkpoint.index_file import INDEX_NAME, read_weight_map
from tensorsurgeon.checkpoint.strict_json import StrictJSONError, parse_object
from tensorsurgeon.errors import (
    CheckpointError,
    IndexFileError,
    MissingTensorError,
    did_you_mean,
    shortened,
)
from tensorsurgeon.specs import StoredTensor

SINGLE_NAME = "model.safetensors"
CONFIG_LIMIT = 10_000_000
"""Largest config.json read, in bytes."""

CONFIG_LEVELS = 100
"""Most levels of nesting in a config.json; none has ten."""


_TOKENIZER_PATTERNS = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "*.jinja",
    "*.model",
    "merges.txt",
    "vocab.*",
)
_CODE = ("*.py", "*.bin", "*.pickle", "*.pkl", "*.pt", "*.pth")
"""Code, and pickles, which are code to whoever loads them."""

_LEFT_BEHIND = (
    "config.json",
    "*.index.json",
    "adapter_config.json",
    "tensorsurgeon.json",
    "trainer_state.json",
)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a folder holds, as its headers and config say; no tensor byte was read.

    Attributes:
        path: the folder.
        config: config.json.
        tensors: every stored tensor by name, shard by shard in the order of their bytes.
        identities: config.json, index and shards, as they were before they were read.
        tokenizer_files: names of the files that make up the tokenizer, chat template included.
        other_files: names of the other JSON files that go along: generation config, processors.
    """

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    identities: Mapping[Path, FileIdentity]
    tokenizer_files: tuple[str, ...]
    other_files: tuple[str, ...]


def open_checkpoint(path: Path) -> Checkpoint:
    """Read a folder's config, index and shard headers.

    Raises:
        CheckpointError: no such folder, no config, no safetensors weights; says what to do.
        HeaderError, IndexFileError, MissingTensorError: from the files themselves.
    """
    try:
        if not path.is_dir():
            _refuse_path(path)
        names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", where=str(path)) from None
    tokenizer = tuple(
        name for name in names if _matches(name, _TOKENIZER_PATTERNS) and not _matches(name, _CODE)
    )
    # Before any of them is read: one that changes meanwhile then differs from what is noted here.
    identities = {path / name: identify(path / name) for name in names if _is_read(name)}
    config, tensors = _read_config(path / "config.json"), _read_tensors(path, names)
    read = {path / "config.json", path / INDEX_NAME, *(t.path for t in tensors.values())}
    return Checkpoint(
        path=path,
        config=config,
        tensors=tensors,
        identities={file: found for file, found in identities.items() if file in read},
        tokenizer_files=tokenizer,
        other_files=tuple(
            name
            for name in names
            if name.endswith(".json") and name not in tokenizer and not _matches(name, _LEFT_BEHIND)
        ),
    )


def _is_read(name: str) -> bool:
    return name in ("config.json", INDEX_NAME) or name.endswith(".safetensors")


def _refuse_path(path: Path) -> None:
    if path.exists():
        fix = "a source is the folder that holds config.json" if path.is_file() else ""
        raise CheckpointError("is not a folder", where=str(path), fix=fix)
    beside = [entry.name for entry in _listing(path.parent) if entry.is_dir()]
    fix = did_you_mean(path.name, beside) if beside else ""
    raise CheckpointError("there is no such folder", where=str(path), fix=fix)


def _listing(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from folder.iterdir()


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise CheckpointError("is not a regular file", where=str(path))
        if path.stat().st_size > CONFIG_LIMIT:
            raise CheckpointError(f"is larger than {CONFIG_LIMIT} bytes", where=str(path))
        return parse_object(path.read_bytes(), levels=CONFIG_LEVELS)
    except FileNotFoundError:
        raise CheckpointError(
            "is not there", where=str(path), fix="a source is the folder that holds config.json"
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except StrictJSONError as problem:
        raise CheckpointError(str(problem), where=str(path)) from None


def _read_tensors(folder: Path, names: list[str]) -> dict[str, StoredTensor]:
    # transformers looks for the single file first as well.
    if SINGLE_NAME in names:
        return read_header(folder / SINGLE_NAME)
    if INDEX_NAME in names:
        return _read_shards(folder, read_weight_map(folder / INDEX_NAME))
    shards = [name for name in names if name.endswith(".safetensors")]
    if len(shards) == 1:
        return read_header(folder / shards[0])
    if shards:
        raise CheckpointError(
            f"has {len(shards)} safetensors files but no {INDEX_NAME}",
            where=str(folder),
            fix="download the index file as well",
        )
    raise CheckpointError(
        "has no safetensors weights" + _other_weights(names),
        where=str(folder),
        fix=(
            "load it with transformers and call save_pretrained(folder), which writes safetensors; "
            "pickles (.bin, .pt) are never opened here, since opening one runs its code"
        ),
    )


def _other_weights(names: list[str]) -> str:
    others = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".gguf", ".msgpack"))]
    return f", only {shortened(', '.join(others))}" if others else ""


def _read_shards(folder: Path, weight_map: dict[str, str]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(set(weight_map.values())):
        for name, tensor in read_header(folder / shard).items():
            if name in tensors:
                other = tensors[name].path.name
                raise IndexFileError(
                    f"tensor '{name}' is both in {other} and in {shard}", where=str(folder)
                )
            if weight_map.get(name) != shard:
                said = weight_map.get(name)
                raise IndexFileError(
                    f"shard {shard} holds tensor '{name}', which the index "
                    + (f"says is in {said}" if said else "does not name"),
                    where=str(folder / INDEX_NAME),
                    fix="index and shards are of different downloads: download all of them again",
                )
            tensors[name] = tensor
    missing = [name for name in weight_map if name not in tensors]
    if missing:
        raise MissingTensorError(
            f"tensor '{missing[0]}' is in the index, but not in its shard {weight_map[missing[0]]}"
            + (f" ({len(missing)} such tensors)" if len(missing) > 1 else ""),
            where=str(folder / INDEX_NAME),
            fix="index and shards are of different downloads: download all of them again",
        )
    return tensors
