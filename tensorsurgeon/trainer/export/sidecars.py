"""The small files that go along with a trained checkpoint, as they are beside the one it was."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorsurgeon.checkpoint import CONFIG_LIMIT, Checkpoint, Manifest
from tensorsurgeon.checkpoint.links import leaves
from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.writing import json_bytes

RECIPE_NAME = "recipe.yaml"
LAYER_MAP_NAME = "layer_map.svg"

_LIMIT = 200_000_000
"""Largest file that goes along, in bytes: it is read whole. Large tokenizers take 40 MB."""

_CODE_KEYS = ("auto_map", "custom_pipelines")
"""Keys of a config whose values name Python classes outside of transformers."""


def sidecars_of(checkpoint: Checkpoint) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of tokenizer, chat template, processor and generation config.

    Python files stay behind, and so do the names of their classes in configs: what was trained was
    the class of transformers.

    Raises:
        CheckpointError: one cannot be read, or is larger than any of use.
    """
    for name in (*checkpoint.tokenizer_files, *checkpoint.other_files):
        data = _read(checkpoint.path / name)
        yield name, _without_code(data) if name.endswith("config.json") else data


def of_surgery(checkpoint: Checkpoint, surgery: Manifest | None) -> dict[str, bytes]:
    """Recipe and picture of the surgery, where they are those that its manifest speaks of."""
    found = {}
    for name in (LAYER_MAP_NAME, RECIPE_NAME):
        path = checkpoint.path / name
        entry = surgery.files.get(name) if surgery else None
        if entry is None or not path.is_file() or leaves(checkpoint.path, name):
            continue
        data = _read(path)
        if hashlib.sha256(data).hexdigest() == entry["sha256"]:
            found[name] = data
    return found


def without_code(config: Any) -> Any:
    """A config without what makes transformers run Python files of the folder or of the Hub."""
    if isinstance(config, dict):
        return {key: without_code(value) for key, value in config.items() if key not in _CODE_KEYS}
    return [without_code(item) for item in config] if isinstance(config, list) else config


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _LIMIT:
            raise CheckpointError(f"is larger than {_LIMIT // 10**6} MB", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", where=str(path)) from None


def _without_code(data: bytes) -> bytes:
    """The bytes of a config; what transformers cannot parse names nothing."""
    try:
        config = json.loads(data) if len(data) <= CONFIG_LIMIT else None
        kept = without_code(config)
    except (ValueError, RecursionError):
        return data
    return data if kept == config else json_bytes(kept)
