"""Checkpoints of one training: the folders that a pattern matches, in their order."""

import glob
import os
import re
from pathlib import Path

_NUMBER = re.compile(r"([0-9]+)")


def matching_folders(pattern: str, root: Path) -> list[str]:
    """The folders a pattern matches, numbers in their names counted: step-9 before step-10.

    Args:
        pattern: a path in which `*` is any run of characters within a name and `?` is one;
            relative to `root`, `~` for a home.
        root: a folder.

    Returns:
        Their paths, as the pattern begins: relative to `root` or absolute.
    """
    if "\0" in pattern:  # no name has one, and the search would raise
        return []
    # Character sets are no part of the language.
    escaped = os.path.expanduser(pattern).replace("[", "[[]")
    found = [path for path in glob.glob(escaped, root_dir=root) if (root / path).is_dir()]
    # Begun so, a path is never taken for a repository's name.
    return [
        path if path.startswith((".", "/")) else f"./{path}" for path in sorted(found, key=_order)
    ]


def _order(path: str) -> tuple[list[tuple[str, int]], str]:
    """Text and number by turns; of equal ones, as 9 and 09, the spelling decides."""
    parts = _NUMBER.split(path)
    numbers = [int(part) for part in parts[1::2]]
    return list(zip(parts[::2], [*numbers, -1], strict=True)), path
