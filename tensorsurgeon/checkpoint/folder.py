"""A checkpoint folder: its config, its tensors, and the small files beside them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorsurgeon.checkpoint.adapter_config import ADAPTER_CONFIG, APPLY_IT
from tensorsurgeon.checkpoint.config_file import read_config
from tensorsurgeon.checkpoint.header import HEADER_LIMIT, parse_start, read_header
from tensorsurgeon.checkpoint.identity import FileIdentity, identify
from tensorsurgeon.checkpoint.index_file import INDEX_NAME, ShardIndex, read_index
from tensorsurgeon.checkpoint.json_scan import NAME_SHOWN
from tensorsurgeon.checkpoint.links import STAY_INSIDE, leaves
from tensorsurgeon.checkpoint.listing import CONFIG_NAME, Kind, kinds_of, list_files
from tensorsurgeon.checkpoint.remote import RemoteFile, Repo
from tensorsurgeon.errors import (
    CheckpointError,
    IndexFileError,
    MissingTensorError,
    printable,
    shortened,
)
from tensorsurgeon.specs import StoredTensor

SINGLE_NAME = "model.safetensors"

HEADERS_LIMIT = 4 * HEADER_LIMIT
"""Most bytes of headers read in all; the largest models have a quarter of it."""

_AT_ONCE = 8
"""Headers held at a time, as they come from a repository."""

Identity = FileIdentity | RemoteFile
"""Which file it is that was looked at: one here, or one of a repository that is still there."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a folder holds, as its headers and config say; no tensor byte was read.

    Attributes:
        path: the folder.
        config: config.json.
        tensors: every stored tensor by name, shard by shard in the order of their bytes.
        identities: config.json, index and shards, as they were before they were read; of a
            repository, what else is not here as well.
        tokenizer_files: names of the files that make up the tokenizer, chat template included.
        other_files: names of the other JSON files that go along: generation config, processors.
        code_files: names of the Python files beside; `auto_map` in a config names their classes.
        notes: what is odd about the folder, and yet no reason to refuse it.
        repo: whose commit it is, where files of it may be missing; the folder is of a cache then.
    """

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    identities: Mapping[Path, Identity]
    tokenizer_files: tuple[str, ...]
    other_files: tuple[str, ...]
    code_files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    repo: Repo | None = None


def open_checkpoint(path: Path, repo: Repo | None = None) -> Checkpoint:
    """Read a folder's config, index and shard headers.

    Args:
        path: the folder.
        repo: has those files that are not in it. Config and index are.

    Raises:
        CheckpointError: no such folder, no config, no safetensors weights, or a link that leaves
            the folder; says what to do.
        HeaderError, IndexFileError, MissingTensorError: from the files themselves.
    """
    here = list_files(path)
    elsewhere = {} if repo is None else {n: f for n, f in repo.files.items() if n not in here}
    kinds = dict(sorted({**here, **kinds_of(elsewhere)}.items()))
    read = (Kind.CONFIG, Kind.INDEX, Kind.WEIGHTS)
    # Before any of them is read: one that changes meanwhile then differs from what is noted here.
    identities: dict[Path, Identity] = {
        path / name: identify(path / name)
        for name, kind in here.items()
        if kind in read and (path / name).exists()
    }
    identities |= {path / name: elsewhere[name] for name in elsewhere if name in kinds}
    if CONFIG_NAME not in kinds and (path / ADAPTER_CONFIG).exists():
        raise CheckpointError("is a LoRA adapter, not a model", where=str(path), fix=APPLY_IT)
    config = read_config(path / CONFIG_NAME)
    index = None
    # transformers looks for the single file first as well.
    if SINGLE_NAME not in kinds and INDEX_NAME in kinds:
        index = read_index(path / INDEX_NAME, elsewhere)
        shards = set(index.weight_map.values())
        tensors = _joined(path, _headers(path, shards, repo, elsewhere), index.weight_map)
    else:
        only = _only_file(path, _named(kinds, Kind.WEIGHTS))
        shards, tensors = {only}, dict(_headers(path, {only}, repo, elsewhere))[only]
    used = {CONFIG_NAME, *shards, *((INDEX_NAME,) if index else ())}
    used |= {name for name in elsewhere if kinds.get(name) not in (None, Kind.WEIGHTS)}
    return Checkpoint(
        path=path,
        config=config,
        tensors=tensors,
        identities={file: found for file, found in identities.items() if file.name in used},
        tokenizer_files=_named(kinds, Kind.TOKENIZER),
        other_files=_named(kinds, Kind.OTHER),
        code_files=_named(kinds, Kind.CODE),
        repo=repo,
        notes=tuple(_notes(path, set(_named(kinds, Kind.WEIGHTS)) - shards, tensors, index)),
    )


def _named(kinds: Mapping[str, Kind], kind: Kind) -> tuple[str, ...]:
    return tuple(name for name, found in kinds.items() if found is kind)


def _notes(
    path: Path, stale: set[str], tensors: Mapping[str, StoredTensor], index: ShardIndex | None
) -> Iterator[str]:
    if stale:
        few = ", ".join(sorted(stale)[:8]) + (", …" if len(stale) > 8 else "")
        yield printable(f"{path}: beside the weights, and not read: {few}")
    nbytes = sum(tensor.spec.nbytes for tensor in tensors.values())
    if index and index.total_size is not None and index.total_size != nbytes:
        said = shortened(repr(index.total_size))
        yield printable(f"{path / INDEX_NAME}: total_size is {said}, the tensors take {nbytes}")


def _only_file(folder: Path, files: tuple[str, ...]) -> str:
    """The file that holds all weights, where there is no index."""
    if SINGLE_NAME in files or len(files) == 1:
        name = SINGLE_NAME if SINGLE_NAME in files else files[0]
        if leaves(folder, name):
            raise CheckpointError(
                "is a link that leaves its folder", where=str(folder / name), fix=STAY_INSIDE
            )
        return name
    if files:
        raise CheckpointError(
            f"has {len(files)} safetensors files but no {INDEX_NAME}",
            where=str(folder),
            fix="download the index file as well",
        )
    raise CheckpointError(
        "has no safetensors weights" + _other_weights(folder),
        where=str(folder),
        fix=(
            "load it with transformers and call save_pretrained(folder), which writes safetensors; "
            "pickles (.bin, .pt) are never opened here, since opening one runs its code"
        ),
    )


def _other_weights(folder: Path) -> str:
    suffixes = (".bin", ".pt", ".pth", ".gguf", ".msgpack")
    others = sorted(entry.name for entry in folder.iterdir() if entry.suffix in suffixes)
    return f", only {shortened(', '.join(others))}" if others else ""


def _headers(
    folder: Path, shards: set[str], repo: Repo | None, elsewhere: Mapping[str, RemoteFile]
) -> Iterator[tuple[str, dict[str, StoredTensor]]]:
    """The tensors of each shard, a few shards at a time: headers can be much larger than these."""
    left = HEADERS_LIMIT
    names = sorted(shards)
    for first in range(0, len(names), _AT_ONCE):
        few = names[first : first + _AT_ONCE]
        absent = [name for name in few if name in elsewhere]
        starts = dict(repo.starts(absent)) if repo and repo.starts and absent else {}
        for shard in few:
            if shard in starts:
                found = parse_start(starts.pop(shard), elsewhere[shard].nbytes, folder / shard)
            else:
                found = read_header(folder / shard)
            left -= min((tensor.offset for tensor in found.values()), default=0)
            if left < 0:
                raise CheckpointError(
                    f"has shards whose headers are longer than {HEADERS_LIMIT} bytes in all",
                    where=str(folder),
                )
            yield shard, found


def _joined(
    folder: Path,
    headers: Iterable[tuple[str, Mapping[str, StoredTensor]]],
    weight_map: dict[str, str],
) -> dict[str, StoredTensor]:
    """The tensors of all shards, which are those that the index names."""
    tensors: dict[str, StoredTensor] = {}
    for shard, found in headers:
        for name, tensor in found.items():
            if name in tensors:
                other = tensors[name].path.name
                raise IndexFileError(
                    f"tensor '{shortened(name, NAME_SHOWN)}' is both in {other} and in {shard}",
                    where=str(folder),
                )
            if weight_map.get(name) != shard:
                said = weight_map.get(name)
                raise IndexFileError(
                    f"shard {shard} holds tensor '{shortened(name, NAME_SHOWN)}', which the index "
                    + (f"says is in {said}" if said else "does not name"),
                    where=str(folder / INDEX_NAME),
                    fix="index and shards are of different downloads: download all of them again",
                )
            tensors[name] = tensor
    missing = [name for name in weight_map if name not in tensors]
    if missing:
        raise MissingTensorError(
            f"tensor '{shortened(missing[0], NAME_SHOWN)}' is in the index, "
            f"but not in its shard {weight_map[missing[0]]}"
            + (f" ({len(missing)} such tensors)" if len(missing) > 1 else ""),
            where=str(folder / INDEX_NAME),
            fix="index and shards are of different downloads: download all of them again",
        )
    return tensors
