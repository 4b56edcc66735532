"""Checkpoint folders whose config.json is read, or changed in a copy."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def with_config(
    folder: Path, copy: Path, *, without: Iterable[str] = (), **settings: Any
) -> dict[str, Any]:
    """Copies a folder with other settings of its language model, and returns the removed ones."""
    shutil.copytree(folder, copy)
    config = read_config(copy)
    text = config.get("text_config", config)
    removed = {key: text.pop(key) for key in without if key in text}
    text.update(settings)
    (copy / "config.json").write_text(json.dumps(config))
    return removed
