"""The licence that a checkpoint's model card names: three keys of a stranger's README.md."""

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tensorsurgeon.checkpoint.links import leaves

CARD_NAME = "README.md"

CARD_LIMIT = 1_000_000
"""Largest README.md that is read, in bytes; the longest cards, of benchmarks, take 200 kB."""

_ENTRY_LIMIT = 4000
"""Most characters of one of the three entries."""

_FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_ENTRY = re.compile(
    r"^(license|license_name|license_link)[ \t]*:[^\n]*(?:\n(?![^\s#-])[^\n]*)*", re.MULTILINE
)
"""One of the keys with all lines of its value: those behind that do not begin another key."""

_ID = re.compile(r"[a-z0-9][a-z0-9.+_-]{0,63}")


@dataclass(frozen=True, kw_only=True, slots=True)
class License:
    """A licence as a model card names it.

    Attributes:
        ids: identifiers of the Hub, as `apache-2.0`; `other` stands for any that it has none for.
        name: of a licence that is `other`; may be empty.
        link: to the text of such a one, or its file in the same repository; may be empty.
    """

    ids: tuple[str, ...]
    name: str = ""
    link: str = ""

    @property
    def is_definite(self) -> bool:
        """Whether two models that name it are known to be under the same."""
        return "unknown" not in self.ids and ("other" not in self.ids or bool(self.name))

    def __str__(self) -> str:
        listed = ", ".join(self.ids)
        return f"{listed} ({self.name})" if self.name else listed


def license_of(folder: Path) -> License | None:
    """The licence in the front matter of a folder's README.md.

    Whatever is odd about file or front matter means None, and never an error. Only the lines of
    the three keys go through the YAML library, which would take long for all of a large card.
    """
    match = _FRONT_MATTER.match(_text(folder))
    entries: dict[str, str] = {}
    for entry in _ENTRY.finditer(match[1] + "\n" if match else ""):
        if entry[1] in entries or len(entry[0]) > _ENTRY_LIMIT:
            return None
        entries[entry[1]] = entry[0]
    ids = tuple(text.lower() for text in _values(entries.get("license", "")))
    if not ids or not all(map(_ID.fullmatch, ids)):
        return None
    if "other" not in ids:
        return License(ids=ids)
    name, link = (_only(_values(entries.get(f"license_{key}", ""))) for key in ("name", "link"))
    return License(ids=ids, name=name[:200], link=link if len(link) <= 500 else "")


def common_license(licenses: Iterable[License | None]) -> License | None:
    """The licence that all models are under; None where they differ, or any names none."""
    found = list(licenses)
    first = found[0] if found else None
    if first is None or len(found) == 1:
        return first
    return first if first.is_definite and all(other == first for other in found) else None


def _text(folder: Path) -> str:
    """The card; empty where there is none, or something else than a text of a sane size."""
    try:
        if leaves(folder, CARD_NAME):
            return ""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe would wait for ever
        with open(os.open(folder / CARD_NAME, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > CARD_LIMIT:
                return ""
            data = file.read(CARD_LIMIT)
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, ValueError):
        return ""


def _values(entry: str) -> tuple[str, ...]:
    """The texts that one entry holds, a scalar or a list; none where it holds anything else."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if not entry:
        return ()
    try:
        # Nodes are not made into objects, so that no tag does anything and no alias grows.
        root = YAML(typ="safe", pure=True).compose(entry)
        ((_, value),) = root.value
    except (YAMLError, ValueError, TypeError, AttributeError, RecursionError):
        return ()
    nodes = [value] if isinstance(value.value, str) else value.value
    texts = [getattr(node, "value", None) for node in nodes]
    tags = {str(getattr(node, "tag", "")) for node in nodes}
    if tags - {"tag:yaml.org,2002:str"}:
        return ()
    return tuple(text.strip() for text in texts if isinstance(text, str))


def _only(values: tuple[str, ...]) -> str:
    return values[0] if len(values) == 1 else ""
