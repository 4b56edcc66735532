"""A recipe's text fit to be shown: no folder of this machine is named in it, all else is kept."""

import posixpath
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ruamel.yaml.nodes import Node

_PLAIN = re.compile(r"\./[A-Za-z0-9_][A-Za-z0-9._-]*")
"""Replacements that need no quotes anywhere in YAML."""

_PROPERTIES = re.compile(r"(?:[&!]\S*\s+|#[^\n]*\n\s*)*")
"""Anchor and tag, which stand before a scalar and count as part of it."""

_TAG = re.compile(r"!\S*\s+")
_BLOCK_HEADER = re.compile(r"[|>][-+0-9]*([ \t]+#[^\r\n]*)?")


def portable_text(text: str) -> str:
    """A recipe's text in which paths to folders elsewhere on the disk have become `./name`.

    A path is replaced where it is absolute, begins with `~` or leads upwards: by its last
    component, two of which never become one. Where to push is left out, which is for one user
    only. Comments, order and quotes stay as they are.

    Args:
        text: a recipe that was read without an error.
    """
    from ruamel.yaml import YAML

    text = text.removeprefix("\ufeff")
    root = YAML(typ="safe", pure=True).compose(text)
    nodes = {node.start_mark.index: node for node in _paths(root) if _is_text(node)}
    # A text that is a model's name may be one by an alias as well, and is told all over anyway.
    models = {name.value for name, _ in _entries(_value(root, "models"))}
    paths = [node for node in nodes.values() if node.value not in models]
    moved = [node for node in paths if is_local(node.value)]
    taken = models | {_in_full(node.value) for node in paths if node not in moved}
    names: dict[str, str] = {}
    written: dict[Node, str | None] = {}
    for node in moved:
        if node.value not in names:
            names[node.value] = portable_path(node.value, taken)
            taken.add(names[node.value])
        written[node] = names[node.value]
    push = _value(_value(root, "output"), "push")
    if push is not None and push.start_mark.index not in nodes and push.value not in models:
        written[push] = None
    for node in sorted(written, key=lambda node: -node.start_mark.index):
        begin, end = node.start_mark.index, node.end_mark.index
        text = text[:begin] + _scalar(written[node], text[begin:end]) + text[end:]
    return text


def is_local(path: str) -> bool:
    """Whether a path tells of this machine: absolute, of a home, or leading upwards."""
    if path.startswith("hf://"):
        return False
    return path.startswith(("/", "~")) or ".." in path.split("/")


def portable_path(path: str, taken: set[str]) -> str:
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


def quoted_scalar(text: str) -> str:
    """Any text as a double-quoted scalar of YAML, on one line and in visible characters."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    code = ord(character)
    if character.isprintable():
        return character
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _paths(root: "Node") -> "Iterator[Node]":
    """The scalars that name folders: sources, short and long, and the output."""
    seen: set[int] = set()
    for key, value in _entries(root):
        if key.value == "models":
            for _, model in _entries(value):
                yield from [model] if isinstance(model.value, str) else _sources(model, seen)
        elif key.value == "output":
            if path := _value(value, "path"):
                yield path
        else:
            yield from _sources(value, seen)


def _sources(node: "Node", seen: set[int]) -> "Iterator[Node]":
    """The paths of the sources in an expression; what aliases repeat is looked at once."""
    if id(node) in seen or isinstance(node.value, str):
        return
    seen.add(id(node))
    entries = _entries(node)
    if len(entries) == 1 and entries[0][0].value == "source":
        given = entries[0][1]
        path = given if isinstance(given.value, str) else _value(given, "path")
        if path is not None:
            yield path
        return
    for inner in [value for _, value in entries] if entries else node.value:
        yield from _sources(inner, seen)


def _entries(node: "Node | None") -> "list[tuple[Node, Node]]":
    """The keys and values of a mapping; nothing of any other node."""
    from ruamel.yaml.nodes import MappingNode

    return list(node.value) if isinstance(node, MappingNode) else []


def _value(node: "Node | None", key: str) -> "Node | None":
    return next((value for name, value in _entries(node) if name.value == key), None)


def _is_text(node: "Node") -> bool:
    return isinstance(node.value, str)


def _in_full(path: str) -> str:
    """A relative path in the one spelling that all of the same folder share."""
    return "./" + posixpath.normpath(path)


def _scalar(value: str | None, was: str) -> str:
    """A text, or null, written as near as can be to how another was."""
    properties = _PROPERTIES.match(was)
    assert properties is not None
    before, was, after = properties[0], was[properties.end() :], ""
    if block := _BLOCK_HEADER.match(was):
        was, after = '""', (block[1] or "") + was[len(was.rstrip()) :]
    if value is None:
        return _TAG.sub("", before) + "null" + after
    quote = was[0] if was[0] in "'\"" else ""
    written = f"{quote}{value}{quote}" if _PLAIN.fullmatch(value) else quoted_scalar(value)
    return before + written + after
