"""Folders that are not there, told with those beside them that would do."""

from collections.abc import Callable
from pathlib import Path

from tensorsurgeon.errors import DataError, did_you_mean


def no_such_folder(folder: Path, would_do: Callable[[Path], bool], fix: str) -> DataError:
    """What to raise where there is no folder of this name.

    Args:
        folder: what was named.
        would_do: whether another folder is of the kind that is wanted.
        fix: what to do where none is that lies beside it.
    """
    if folder.exists():
        return DataError("is not a folder", where=str(folder), fix=fix)
    try:
        beside = [other for other in folder.parent.iterdir() if not other.name.startswith(".")]
        known = [other.name for other in beside if would_do(other)]
    except OSError:
        known = []
    fix = did_you_mean(folder.name, known) or fix
    return DataError("there is no such folder", where=str(folder), fix=fix)
