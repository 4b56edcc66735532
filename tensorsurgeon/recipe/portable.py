"""A recipe's text fit to be shown: no folder of this machine is named in it, all else is kept."""

from typing import TYPE_CHECKING

from tensorsurgeon.documents.portable import portable_paths
from tensorsurgeon.documents.scalars import replace_scalars

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ruamel.yaml.nodes import Node


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
    names = portable_paths([node.value for node in paths], models)
    written: dict[Node, str | None] = {n: names[n.value] for n in paths if n.value in names}
    push = _value(_value(root, "output"), "push")
    if push is not None and push.start_mark.index not in nodes and push.value not in models:
        written[push] = None
    return replace_scalars(text, written)


def _paths(root: "Node") -> "Iterator[Node]":
    """The scalars that name folders: sources, short and long, adapters, and the output."""
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


_PATHS = {"source": "path", "lora": "adapter", "checkpoint_average": "checkpoints"}
"""Operators that name folders, and the parameters by which they do."""


def _sources(node: "Node", seen: set[int]) -> "Iterator[Node]":
    """The paths of the sources in an expression; what aliases repeat is looked at once."""
    if id(node) in seen or isinstance(node.value, str):
        return
    seen.add(id(node))
    entries = _entries(node)
    if len(entries) == 1 and entries[0][0].value in _PATHS:
        given = entries[0][1]
        paths = _value(given, _PATHS[entries[0][0].value]) if _entries(given) else given
        if paths is not None:
            yield from [paths] if isinstance(paths.value, str) else paths.value
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
