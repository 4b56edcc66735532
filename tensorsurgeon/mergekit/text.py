"""A recipe's document as YAML that people read: short parts on one line, the rest in blocks."""

from collections.abc import Iterable
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

_WIDTH = 100
_SCALARS = 8
"""Most scalars in a mapping on one line; a list may fill the line."""


def recipe_text(document: dict[str, Any], notes: Iterable[str]) -> str:
    """The YAML of a recipe, with what is to be known of it above.

    Reading it gives the document again, but for places.
    """
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 1 << 16  # the lines are broken here
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = StringIO()
    whole = _block(document, 0)
    whole["models"] = _block(document["models"], 2)
    yaml.dump(whole, out)
    return "".join(f"# {note}\n" for note in notes) + out.getvalue()


def _block(value: Any, indent: int) -> "CommentedMap | CommentedSeq":
    """A mapping or a list whose parts have a line each, or more."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    if isinstance(value, dict):
        return CommentedMap(
            {str(key): _part(inner, indent + len(str(key)) + 2) for key, inner in value.items()}
        )
    return CommentedSeq(_part(inner, indent + 4) for inner in value)


def _part(value: Any, column: int) -> Any:
    """A value that begins at a column, on one line where it fits."""
    if not isinstance(value, dict | list):
        return str(value) if isinstance(value, str) else value
    if column + len(_flow(value)) <= _WIDTH and _is_short(value):
        return _on_one_line(value)
    return _block(value, column)


def _on_one_line(value: Any) -> Any:
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    if isinstance(value, dict):
        made = CommentedMap({str(key): _on_one_line(inner) for key, inner in value.items()})
        made.fa.set_flow_style()
        return made
    if isinstance(value, list):
        listed = CommentedSeq(map(_on_one_line, value))
        listed.fa.set_flow_style()
        return listed
    return str(value) if isinstance(value, str) else value


def _is_short(value: Any) -> bool:
    """Whether a value reads well on one line: a list of mappings, or of one without braces, not."""
    if isinstance(value, dict):
        return _scalars(value) <= _SCALARS and all(map(_is_short, value.values()))
    if not isinstance(value, list):
        return True
    mappings = [item for item in value if isinstance(item, dict)]
    braced = all(len(item) > 1 for item in mappings)
    return braced and len(mappings) <= 1 and all(map(_is_short, value))


def _scalars(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_scalars, value.values()))
    return sum(map(_scalars, value)) if isinstance(value, list) else 1


def _flow(value: Any) -> str:
    """About how a value looks on one line: no shorter than it will be."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return f"'{value}'" if isinstance(value, str) else str(value)
