"""Parts of a recipe's document, built with the marks of what they are made from."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tensorsurgeon.documents import LocatedList, LocatedMap, LocatedStr, Mark


class Part(NamedTuple):
    """A value of a document, and where the text that it is made from begins."""

    value: Any
    mark: Mark


def mapping(mark: Mark, entries: Mapping[str, Part]) -> Part:
    """A mapping whose keys are where their values are."""
    made = LocatedMap({key: part.value for key, part in entries.items()})
    made.mark = mark
    made.key_marks = {key: part.mark for key, part in entries.items()}
    made.value_marks = dict(made.key_marks)
    return Part(made, mark)


def listing(mark: Mark, items: Iterable[Part]) -> Part:
    """A list."""
    parts = list(items)
    made = LocatedList(part.value for part in parts)
    made.mark = mark
    made.item_marks = [part.mark for part in parts]
    return Part(made, mark)


def text(value: str, mark: Mark) -> Part:
    """A string."""
    made = LocatedStr(value)
    made.mark = mark
    return Part(made, mark)


def operator(name: str, mark: Mark, parameters: Mapping[str, Part]) -> Part:
    """An expression: an operator and its parameters."""
    return mapping(mark, {name: mapping(mark, parameters)})
