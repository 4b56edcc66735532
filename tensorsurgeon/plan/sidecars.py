"""The small files that go along with the result; code, and what names it, only on request."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tensorsurgeon.arch import without_code
from tensorsurgeon.checkpoint import CONFIG_LIMIT, Checkpoint, Identity, identify
from tensorsurgeon.errors import CheckpointError

SIDECAR_LIMIT = 200_000_000
"""Largest file that goes along, in bytes: it is read whole. Large tokenizers take 40 MB."""

CODE_DROPPED = (
    "the names of Python classes are dropped, as the files themselves are; --copy-code keeps both"
)


GENERATION_CONFIG = "generation_config.json"

Changes = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Gives the new values of keys of a config."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SidecarFile:
    """A small file that goes along.

    Attributes:
        name: its name in the result.
        path: the file.
        identity: the file as it was before it was looked at.
        data: what is written, where that is not the file as it is.
        names_dropped: whether names of classes stand in it no more.
    """

    name: str
    path: Path
    identity: Identity
    data: bytes | None = None
    names_dropped: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnFile:
    """A small file that goes along and is of no source: it is made here.

    Attributes:
        name: its name in the result.
        data: its bytes.
        recorded: whether the manifest has its digest. One that has not is free to be edited.
    """

    name: str
    data: bytes
    recorded: bool = True


def sidecars_of(
    donor: Checkpoint,
    tokenizer: Checkpoint,
    *,
    code: bool,
    replaced: Collection[str] = (),
    changes: Changes | None = None,
) -> Iterator[SidecarFile]:
    """The files that go along with a result.

    Args:
        donor: the model that gives the config.
        tokenizer: the model that gives the tokenizer.
        code: whether Python files go along, and may be named in the others. Of two files of one
            name the donor's is taken.
        replaced: those of the tokenizer's files in whose place others are made.
        changes: what changes in the generation config.

    Raises:
        CheckpointError: a config cannot be read to see whether it names code, or has to change.
    """
    places = [(name, tokenizer) for name in tokenizer.tokenizer_files if name not in replaced]
    places += [(name, donor) for name in donor.other_files]
    for name, checkpoint in places:
        sidecar = _sidecar(checkpoint, name)
        if name.endswith("config.json"):
            of_config = changes if name == GENERATION_CONFIG else None
            sidecar = _changed(sidecar, code=code, changes=of_config)
        yield sidecar
    if code:
        owners = {name: giver for giver in (tokenizer, donor) for name in giver.code_files}
        for name, checkpoint in sorted(owners.items()):
            yield _sidecar(checkpoint, name)


def _sidecar(checkpoint: Checkpoint, name: str) -> SidecarFile:
    path = checkpoint.path / name
    identity = checkpoint.identities.get(path) or identify(path)
    if identity.nbytes > SIDECAR_LIMIT:
        raise CheckpointError(f"is larger than {SIDECAR_LIMIT // 10**6} MB", where=str(path))
    return SidecarFile(name=name, path=path, identity=identity)


def _changed(sidecar: SidecarFile, *, code: bool, changes: Changes | None) -> SidecarFile:
    """A config as it goes along."""
    if code and changes is None:
        return sidecar
    path = sidecar.path
    try:
        if sidecar.identity.nbytes > CONFIG_LIMIT:
            raise CheckpointError(f"is larger than {CONFIG_LIMIT // 10**6} MB", where=str(path))
        config = _parsed(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except RecursionError:
        raise CheckpointError("nested too deeply", where=str(path)) from None
    kept = config if code else without_code(config)
    new = {**kept, **(changes(kept) if changes else {})}
    if new == config:
        return sidecar
    return replace(sidecar, data=_encoded(new), names_dropped=kept != config)


def _parsed(data: bytes) -> dict[str, Any]:
    """A config as transformers reads it, duplicate keys and NaN allowed.

    What that cannot parse says nothing.
    """
    try:
        config = json.loads(data)
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def data_without_code(data: bytes) -> bytes:
    """A config's bytes without the names of classes."""
    config = _parsed(data)
    kept = without_code(config)
    return data if kept == config else _encoded(kept)


def _encoded(config: object) -> bytes:
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    return text.encode(errors="surrogatepass")
