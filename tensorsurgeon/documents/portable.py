"""Paths fit to be shown: those that tell of this machine become `./name`."""

import posixpath
from collections.abc import Collection, Sequence


def portable_paths(paths: Sequence[str], taken: Collection[str] = ()) -> dict[str, str]:
    """What each of a document's paths that tell of this machine becomes; two never become one.

    Args:
        paths: all that the document names; of two with one name, the first has it.
        taken: what else must not come out.
    """
    used = {*taken, *(_in_full(path) for path in paths if not is_local(path))}
    names: dict[str, str] = {}
    for path in paths:
        if is_local(path) and path not in names:
            names[path] = portable_path(path, used)
            used.add(names[path])
    return names


def is_local(path: str) -> bool:
    """Whether a path tells of this machine: absolute, of a home, or leading upwards."""
    if path.startswith("hf://"):
        return False
    return path.startswith(("/", "~")) or ".." in path.split("/")


def portable_path(path: str, taken: Collection[str]) -> str:
    """`./name`, after the last component of a path.

    Args:
        path: a path of this machine.
        taken: what must not come out; a number behind makes the difference.
    """
    last = path.rstrip("/").rpartition("/")[2]
    if last in ("", ".", "..") or last.startswith("~"):
        last = "model"
    path, count = f"./{last}", 1
    while path in taken:
        count += 1
        path = f"./{last}-{count}"
    return path


def _in_full(path: str) -> str:
    """A relative path in the one spelling that all of the same folder share."""
    return "./" + posixpath.normpath(path)
