"""The manifest, `tensorsurgeon.json`: what a checkpoint was made from, and a digest of every byte.

Form 1, JSON in UTF-8, keys in this order::

    {
    "format": "tensorsurgeon-manifest",
    "version": 1,
    "tensorsurgeon": "0.1.0",                 the program's version
    "recipe": {"sha256": …, "text": …},       of what was read; that without local paths
    "seed": 0,
    "sources": {NAME: {"folder": …, "config": SHA-256, "manifest": SHA-256 or null,
                       "files": {FILE: {"bytes": …, "header": SHA-256}}}},
    "layer_map": [{"sources": [[NAME, layer], …], "new": …, "seam": …}, …],
    "files": {FILE: {"bytes": …, "sha256": …}},           the others, but for README.md
    "shards": {FILE: {"bytes": …, "header_bytes": …, "header": SHA-256}},
    "tensors": {NAME: {"dtype": …, "shape": […], "shard": FILE, "offset": …, "sha256": …,
                       "origin": ORIGIN}, …},
    "created": {"at": …, "binding": …, "run": …, "digest": …}
    }

An adapter is a source, too; its `config` is the digest of adapter_config.json. A digest of a header
is over the file's first `header_bytes` bytes, length prefix and padding
included; one of a tensor is over its bytes as they are stored. ORIGIN is one of ::

    {"source": NAME, "tensor": NAME there}
    {"zeros": true}
    {"operator": NAME, "weights": […], "inputs": [ORIGIN, …]}
    {"operator": NAME, "parameters": {…}, "inputs": [ORIGIN, …]}

A training continues the manifest of what it trained. `recipe` is then its run file; `sources` has
what was trained as well, under a name of its own, and `layer_map` stays what the surgery made it,
or names each layer of `model` where there was none. What was trained has the origin
``{"operator": "train", "parameters": {"stage": …, "steps": …, "tokens": …}, "inputs": [ORIGIN]}``
over the one it had before.

Everything but `created` is the same whenever the same recipe is applied to the same inputs. There,
`binding` tells one command's work from another's, `run` one run's, and `digest` is the SHA-256 of
all bytes of the manifest before the digest itself, so that no byte of the folder can change unseen;
but those of README.md, the model card, which is there to be edited.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorsurgeon.checkpoint.strict_json import StrictJSONError, parse_object
from tensorsurgeon.errors import ManifestError

MANIFEST_NAME = "tensorsurgeon.json"
MANIFEST_LIMIT = 200_000_000
"""Largest manifest read, in bytes; one of 100,000 tensors takes 40 MB."""

FORMAT = "tensorsurgeon-manifest"
VERSION = 1

_LEVELS = 200
"""Most levels of nesting; as deep as recipes nest, and some more."""

_VALUES = 5_000_000
"""Most values; a tensor made of two others takes about 30."""

_KEYS = (
    "format",
    "version",
    "tensorsurgeon",
    "recipe",
    "seed",
    "sources",
    "layer_map",
    "files",
    "shards",
    "tensors",
    "created",
)
_DIGEST_LENGTH = 64
_TAIL = b'"}\n}\n'
"""What comes after the digest, which is the last value of all."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest, as above."""

    tensorsurgeon: str
    recipe: Mapping[str, Any]
    seed: int
    sources: Mapping[str, Any]
    layer_map: tuple[Mapping[str, Any], ...]
    files: Mapping[str, Mapping[str, Any]]
    shards: Mapping[str, Mapping[str, Any]]
    tensors: Mapping[str, Mapping[str, Any]]
    created: Mapping[str, str]


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest's file, a line for each tensor; `created` needs no digest yet."""
    lines = [f'"format": {_text(FORMAT)}', f'"version": {VERSION}']
    for key in _KEYS[2:-1]:
        value = getattr(manifest, key)
        if key in ("sources", "files", "shards", "tensors"):
            inside = ",\n".join(f"{_text(name)}: {_text(entry)}" for name, entry in value.items())
            lines.append(f'"{key}": {{\n{inside}\n}}')
        elif key == "layer_map":
            lines.append(f'"{key}": [\n' + ",\n".join(map(_text, value)) + "\n]")
        else:
            lines.append(f'"{key}": {_text(value)}')
    created = {key: manifest.created[key] for key in ("at", "binding", "run")}
    lines.append(f'"created": {_text(created)[:-1]}, "digest": "')
    head = ("{\n" + ",\n".join(lines)).encode()
    return head + hashlib.sha256(head).hexdigest().encode() + _TAIL


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest; what it says of other files is not looked at.

    Args:
        path: the file.

    Raises:
        ManifestError: it cannot be read, has changed since it was written, or is of a version
            that is not known here.
    """
    where = str(path)
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise ManifestError("is not a regular file", where=where)
        if path.stat().st_size > MANIFEST_LIMIT:
            raise ManifestError(f"is larger than {MANIFEST_LIMIT} bytes", where=where)
        data = path.read_bytes()
        value = parse_object(data, levels=_LEVELS, values=_VALUES)
    except OSError as error:
        raise ManifestError(f"cannot be read: {error.strerror}", where=where) from error
    except StrictJSONError as problem:
        raise ManifestError(str(problem), where=where) from None
    if value.get("format") != FORMAT:
        raise ManifestError("is no manifest of this program", where=where)
    if value.get("version") != VERSION:
        raise ManifestError(
            f"is of version {value.get('version')!s:.20}; this program reads {VERSION}",
            where=where,
            fix="read it with the version of tensorsurgeon that wrote it, or a later one",
        )
    cut = len(data) - len(_TAIL) - _DIGEST_LENGTH
    digest = hashlib.sha256(data[: max(cut, 0)]).hexdigest().encode()
    if data[max(cut, 0) :] != digest + _TAIL:
        raise ManifestError("has changed since it was written: its own digest differs", where=where)
    if wrong := _problem_of_form(value):
        raise ManifestError(wrong, where=where)
    return Manifest(
        **{key: value[key] for key in _KEYS[2:] if key != "layer_map"},
        layer_map=tuple(value["layer_map"]),
    )


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


_ENTRIES: dict[str, dict[str, type]] = {
    "sources": {"config": str, "files": dict},
    "files": {"bytes": int, "sha256": str},
    "shards": {"bytes": int, "header_bytes": int, "header": str},
    "tensors": {
        "dtype": str,
        "shape": list,
        "shard": str,
        "offset": int,
        "sha256": str,
        "origin": dict,
    },
}
"""What each entry of a section must have at least, and of which kind."""


def _problem_of_form(value: Mapping[str, Any]) -> str:
    """What is wrong with a manifest whose digest is right; anybody can make such a one."""
    if tuple(value) != _KEYS:
        return f"does not have exactly the keys {', '.join(_KEYS)}"
    kinds = {"tensorsurgeon": str, "recipe": dict, "seed": int, "layer_map": list, "created": dict}
    for key, kind in kinds.items():
        if type(value[key]) is not kind:
            return f"'{key}' is not {kind.__name__}"
    if not all(isinstance(text, str) for text in value["created"].values()):
        return "'created' holds something else than texts"
    if not all(isinstance(entry, dict) for entry in value["layer_map"]):
        return "'layer_map' holds something else than objects"
    for section, fields in _ENTRIES.items():
        if not isinstance(value[section], dict):
            return f"'{section}' is not dict"
        for name, entry in value[section].items():
            if not isinstance(entry, dict):
                return f"'{section}': '{name}' is not dict"
            for field, kind in fields.items():
                if type(entry.get(field)) is not kind:
                    return f"'{section}': '{name}': '{field}' is not {kind.__name__}"
    return ""
