"""A checkpoint's config.json, read with limits."""

from pathlib import Path
from typing import Any

from tensorsurgeon.checkpoint.strict_json import StrictJSONError, parse_object
from tensorsurgeon.errors import CheckpointError, fix_for

CONFIG_LIMIT = 5_000_000
"""Largest config.json read, in bytes; the names of 20,000 classes, both ways, take 1.5 MB."""

CONFIG_LEVELS = 100
"""Most levels of nesting in a config.json; none has ten."""

CONFIG_VALUES = 200_000
"""Most values in a config.json; those names are 40,000."""


def read_config(path: Path) -> dict[str, Any]:
    """Read a config.json.

    Raises:
        CheckpointError: it is not there, or not what a config is: a regular file of one JSON object
            within the limits above.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise CheckpointError("is not a regular file", where=str(path))
        if path.stat().st_size > CONFIG_LIMIT:
            raise CheckpointError(f"is larger than {CONFIG_LIMIT} bytes", where=str(path))
        return parse_object(path.read_bytes(), levels=CONFIG_LEVELS, values=CONFIG_VALUES)
    except FileNotFoundError:
        raise CheckpointError(
            "is not there", where=str(path), fix="a source is the folder that holds config.json"
        ) from None
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise CheckpointError(what, where=str(path), fix=fix_for(error)) from None
    except StrictJSONError as problem:
        raise CheckpointError(str(problem), where=str(path)) from None
