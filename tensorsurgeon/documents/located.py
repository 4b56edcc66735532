"""YAML 1.2 text to plain data that remembers where in the file each part stands."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tensorsurgeon.errors import Problem, RecipeError

if TYPE_CHECKING:
    from ruamel.yaml import YAML
    from ruamel.yaml.nodes import Node

TEXT_LIMIT = 1_000_000
"""Largest document, in bytes."""

DEPTH_LIMIT = 64
NODE_LIMIT = 50_000
"""Most nodes of a document once its aliases are expanded."""

Composed = TypeVar("Composed")
"""What is made of YAML: a node or several."""


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in the text; line and column count from one."""

    line: int = 1
    column: int = 1


class LocatedMap(dict[str, Any]):
    """A mapping that knows where it, its keys and its values begin."""

    mark: Mark
    key_marks: dict[str, Mark]
    value_marks: dict[str, Mark]


class LocatedList(list[Any]):
    """A list that knows where it and its items begin."""

    mark: Mark
    item_marks: list[Mark]


class LocatedStr(str):
    """A string that knows where it begins."""

    __slots__ = ("mark",)
    mark: Mark


def load_document(data: bytes, name: str, *, needs: str) -> LocatedMap:
    """Read a document's YAML.

    Args:
        data: the file's bytes.
        name: what to call the file in errors.
        needs: what such a document has at least, for the errors.

    Raises:
        RecipeError: not UTF-8, not YAML, empty, not a mapping, duplicate keys, more than one
            document, nested or aliased beyond all use; with the line and column.
    """
    builder = _Builder(name)
    root = builder.compose(_text(data, name))
    if root is None:
        raise RecipeError("is empty", where=name, fix=needs)
    document = builder.build(root, 0)
    if not isinstance(document, LocatedMap):
        raise RecipeError(
            f"holds {kind_of(document)}, not a mapping",
            where=f"{name}:1:1",
            fix=needs,
        )
    if builder.problems:
        raise RecipeError.of(builder.problems)
    return document


def load_documents(data: bytes, name: str) -> list[Any]:
    """Read every document of a YAML file, whatever it holds.

    Args:
        data: the file's bytes.
        name: what to call the file in errors.

    Raises:
        RecipeError: as `load_document`, but for what the documents hold and how many they are.
    """
    builder = _Builder(name)
    found = [builder.build(root, 0) for root in builder.compose_all(_text(data, name))]
    if builder.problems:
        raise RecipeError.of(builder.problems)
    return found


def _text(data: bytes, name: str) -> str:
    if len(data) > TEXT_LIMIT:
        raise RecipeError(f"is {len(data)} bytes long, the limit is {TEXT_LIMIT}", where=name)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"is not a text file: byte {error.start} is not UTF-8", where=name
        ) from None


def mark_at(document: Any, path: Sequence[str | int], *, of_key: bool = False) -> Mark:
    """Where the part of the document at `path` begins, or the nearest part around it.

    Args:
        document: what `load_document` returned, or a part of it.
        path: keys and indices from there.
        of_key: the last key itself rather than its value.
    """
    mark = getattr(document, "mark", Mark())
    for depth, step in enumerate(path):
        if isinstance(document, LocatedMap) and isinstance(step, str) and step in document:
            marks = (
                document.key_marks if of_key and depth == len(path) - 1 else document.value_marks
            )
            mark, document = marks[step], document[step]
        elif isinstance(document, LocatedList) and isinstance(step, int) and step < len(document):
            mark, document = document.item_marks[step], document[step]
        else:
            break
    return mark


def kind_of(value: object) -> str:
    """What a person calls this kind of YAML value."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "a number" if isinstance(value, int | float) else "text"


class _Builder:
    """Nodes to located data, counting as it goes so that no alias bomb goes off."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problems: list[Problem] = []
        self._visited = 0
        self._yaml: YAML | None = None

    def compose(self, text: str) -> "Node | None":
        node: Node | None = self._composed(text, lambda yaml: yaml.compose(text))
        return node

    def compose_all(self, text: str) -> "list[Node]":
        return self._composed(text, lambda yaml: list(yaml.compose_all(text)))

    def _composed(self, text: str, compose: "Callable[[YAML], Composed]") -> "Composed":
        """What is composed of a text, once it is known not to be nested too deeply."""
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        try:
            self._check_depth(YAML(typ="safe", pure=True).parse(text))
            self._yaml = YAML(typ="safe", pure=True)
            return compose(self._yaml)
        except MarkedYAMLError as error:
            at = error.problem_mark or error.context_mark
            what = " ".join(filter(None, (error.context, error.problem))) or "cannot be parsed"
            where = f"{self.name}:{at.line + 1}:{at.column + 1}" if at else self.name
            raise RecipeError(f"not YAML: {what}", where=where) from None
        except YAMLError as error:
            what = str(error).strip().splitlines()[0]
            raise RecipeError(f"not YAML: {what}", where=self.name) from None

    def _check_depth(self, events: Iterator[Any]) -> None:
        """The event stream is flat, so depth is known before anything recurses."""
        depth = 0
        for event in events:
            kind = type(event).__name__
            if kind in ("MappingStartEvent", "SequenceStartEvent"):
                depth += 1
            elif kind in ("MappingEndEvent", "SequenceEndEvent"):
                depth -= 1
            if depth > DEPTH_LIMIT:
                at = event.start_mark
                raise RecipeError(
                    f"nested deeper than {DEPTH_LIMIT} levels",
                    where=f"{self.name}:{at.line + 1}:{at.column + 1}",
                )

    def build(self, node: "Node", depth: int) -> Any:
        from ruamel.yaml.nodes import MappingNode, SequenceNode

        self._visited += 1
        if self._visited > NODE_LIMIT or depth > DEPTH_LIMIT:
            raise RecipeError(
                f"grows to more than {NODE_LIMIT} values or {DEPTH_LIMIT} levels "
                "when its aliases are expanded",
                where=self._place(node),
            )
        if isinstance(node, MappingNode):
            return self._mapping(node, depth)
        if isinstance(node, SequenceNode):
            items = LocatedList(self.build(child, depth + 1) for child in node.value)
            items.mark = _mark(node)
            items.item_marks = [_mark(child) for child in node.value]
            return items
        return self._scalar(node)

    def _mapping(self, node: "Node", depth: int) -> LocatedMap:
        made = LocatedMap()
        made.mark, made.key_marks, made.value_marks = _mark(node), {}, {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node.value, str) else None
            value = self.build(value_node, depth + 1)
            if key is None:
                self._report(key_node, "a key must be plain text")
            elif key in made:
                first = made.key_marks[key]
                self._report(key_node, f"key '{key}' is here twice, first in line {first.line}")
            else:
                made[key] = value
                made.key_marks[key], made.value_marks[key] = _mark(key_node), _mark(value_node)
        return made

    def _scalar(self, node: "Node") -> Any:
        assert self._yaml is not None
        kind = str(node.tag).rpartition(":")[2]
        if kind in ("int", "float", "bool", "null"):
            try:
                value = self._yaml.constructor.construct_object(node)
            except (ValueError, OverflowError):
                value = math.nan
            return value
        text = LocatedStr(node.value)
        text.mark = _mark(node)
        if kind not in ("str", "timestamp"):
            self._report(node, f"the tag {node.tag} is not known here")
        return text

    def _report(self, node: "Node", what: str) -> None:
        self.problems.append(Problem(where=self._place(node), what=what))

    def _place(self, node: "Node") -> str:
        mark = _mark(node)
        return f"{self.name}:{mark.line}:{mark.column}"


def _mark(node: "Node") -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)
