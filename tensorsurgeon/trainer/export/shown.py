"""A run file's text fit to be shown: no folder of this machine is named in it, all else is kept."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tensorsurgeon.documents.portable import portable_paths
from tensorsurgeon.documents.scalars import replace_scalars

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
    root = YAML(typ="safe", pure=True).compose(text)
    found = (node for path in _FOLDERS for node in _scalars(root, path))
    nodes = {node.start_mark.index: node for node in found}  # by an alias, one has several places
    names = portable_paths([node.value for node in nodes.values()])
    return replace_scalars(text, {n: names[n.value] for n in nodes.values() if n.value in names})


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
