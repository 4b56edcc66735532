"""Counts and sizes as a run file writes them: 2e9, 10_000, 5GB."""

from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic import WithJsonSchema as Schema
from pydantic_core import PydanticCustomError

from tensorsurgeon.documents import kind_of
from tensorsurgeon.specs import parse_size

_MOST = 10**15
"""The largest count: of anything that is counted here, there are fewer in the world."""


def _count(raw: Any) -> int:
    """A whole number, also as 2e9 or 2_000_000_000."""
    if isinstance(raw, str):
        try:
            raw = float(raw.replace("_", ""))
        except ValueError:
            raise PydanticCustomError("count", "a whole number, not text") from None
    if isinstance(raw, bool) or not isinstance(raw, int | float) or raw % 1 != 0:
        given = {"given": kind_of(raw) if not isinstance(raw, float) else str(raw)}
        raise PydanticCustomError("count", "a whole number, not {given}", given)
    if raw < 1:
        raise PydanticCustomError("count", "at least 1, not {given}", {"given": str(raw)})
    if raw > _MOST:
        raise PydanticCustomError("count", "at most {most}", {"most": f"{_MOST:.0e}"})
    return int(raw)


def _size(raw: Any) -> int:
    try:
        return parse_size(raw)
    except ValueError as error:
        raise PydanticCustomError("size", "{error}", {"error": str(error)}) from None


Count = Annotated[int, BeforeValidator(_count), Schema({"type": "number", "minimum": 1})]
"""A whole number of at least 1."""

Size = Annotated[int, BeforeValidator(_size), Schema({"type": ["string", "integer"]})]
"""Bytes."""
