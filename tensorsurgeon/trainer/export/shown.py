"""A run file's text fit to be shown: no folder of this machine is named in it, all else is kept."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node, ScalarNode

_FOLDERS = (
    ("model",),
    ("folder",),
    ("data", "train"),
    ("data", "train", "*", "path"),
    ("data", "held_out"),
    ("evaluate", "baseline"),
    ("dpo", "reference"),
    ("output", "path"),
)
"""Where a run file names folders; `*` is each item of a list."""


def shown_run_file(text: str) -> str:
    """A run file's text in which paths to folders elsewhere on the disk have become `./name`.

    A path is replaced where it is absolute, begins with `~` or leads upwards: by its last
    component, two of which never become one. Comments, order and the other values stay.

    Args:
        text: a run file that was read without an error.
    """
    from ruamel.yaml import YAML

    text = text.removeprefix("\ufeff")
    yaml = YAML(typ="safe", pure=True)
    nodes = [node for path in _FOLDERS for node in _scalars(yaml.compose(text), path)]
    names = _names([node.value for node in nodes])
    if not names:
        return text
    wanted = yaml.load(text)
    for path in _FOLDERS:
        _rename(wanted, path, names)
    shown = text
    places = {node.start_mark.index: node for node in nodes if node.value in names}
    for begin, node in sorted(places.items(), reverse=True):
        shown = shown[:begin] + quoted(names[node.value]) + shown[node.end_mark.index :]
    if _is(shown, wanted):
        return shown
    # An anchor, a tag or a block scalar: rare enough to lose the comments for.
    out = io.StringIO()
    yaml.default_flow_style = False
    yaml.dump(wanted, out)
    return out.getvalue()


def quoted(text: str) -> str:
    """Any text as a double-quoted scalar of YAML, on one line and in visible characters."""
    return '"' + re.sub(r'["\\]|[^ -~]', _escaped, text) + '"'


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _names(paths: Sequence[str]) -> dict[str, str]:
    """What each path that tells of this machine becomes."""
    names: dict[str, str] = {}
    taken = set(paths)
    for path in dict.fromkeys(paths):
        if not (path.startswith(("/", "~")) or ".." in path.split("/")):
            continue
        last = path.rstrip("/").rpartition("/")[2]
        plain = "model" if last in ("", ".", "..") or last.startswith("~") else last
        name, count = f"./{plain}", 1
        while name in taken:
            count += 1
            name = f"./{plain}-{count}"
        names[path] = name
        taken.add(name)
    return names


def _scalars(node: "Node | None", path: Sequence[str]) -> "Iterator[ScalarNode]":
    """The texts at a path below a node."""
    from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

    if not path:
        if isinstance(node, ScalarNode) and node.tag == "tag:yaml.org,2002:str":
            yield node
    elif isinstance(node, SequenceNode) and path[0] == "*":
        for item in node.value:
            yield from _scalars(item, path[1:])
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            if key.value == path[0]:
                yield from _scalars(value, path[1:])


def _rename(value: Any, path: Sequence[str], names: Mapping[str, str]) -> None:
    """Replace the text at a path, in place."""
    first, *rest = path
    if isinstance(value, list) and first == "*":
        for item in value:
            _rename(item, rest, names)
    elif isinstance(value, dict) and first in value:
        if rest:
            _rename(value[first], rest, names)
        elif isinstance(value[first], str):
            value[first] = names.get(value[first], value[first])


def _is(text: str, wanted: object) -> bool:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return bool(YAML(typ="safe", pure=True).load(text) == wanted)
    except YAMLError:
        return False
