"""JSON from strangers: UTF-8, no duplicate keys, no NaN, and one kind of error."""

import codecs
import json
import math
from collections.abc import Callable
from typing import Any, TypeVar

from tensorsurgeon.errors import shortened

DIGITS_LIMIT = 1000
"""Most digits of a whole number; 2^64 has twenty."""

T = TypeVar("T")


class StrictJSONError(ValueError):
    """Why a text is not the JSON it should be; the caller knows which file it was."""


def parse_object(
    data: bytes | bytearray | memoryview, *, levels: int | None = None, values: int | None = None
) -> dict[str, Any]:
    """Parse bytes that must hold exactly one JSON object.

    Args:
        data: the bytes.
        levels: most levels of nesting, for what is copied or written again; that recurses.
        values: most values, however nested, told before any is made: two bytes of JSON can become
            an object of 64. Commas and brackets inside of strings count as well.

    Raises:
        StrictJSONError: not UTF-8, not JSON, not an object, a duplicate key, NaN, Infinity or a
            number as large, a lone surrogate, nested too deeply, or of too many values.
    """
    raw = bytes(data)
    if values is not None and sum(map(raw.count, (b",", b"[", b"{"))) > values:
        raise StrictJSONError(f"more than {values} values")
    if raw.startswith(codecs.BOM_UTF8):
        raise StrictJSONError("not JSON: a byte order mark before it")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StrictJSONError(f"not UTF-8 at byte {error.start}") from None
    value = _checked(_DECODER.decode, text)
    try:
        if "\\u" in text:
            refuse_surrogates(value)
        deep = levels is not None and _is_deeper(value, levels)
    except RecursionError:
        deep = True
    if deep:
        raise StrictJSONError("nested too deeply")
    if not isinstance(value, dict):
        raise StrictJSONError(f"a JSON {type(value).__name__} where an object is expected")
    return value


def parse_start(text: str) -> tuple[Any, int]:
    """Parse the one value that a text begins with; also where it ends, in characters.

    Raises:
        StrictJSONError: as `parse_object`, whatever the kind of value.
    """
    value, end = _checked(_DECODER.raw_decode, text)
    if text.find("\\u", 0, end) >= 0:
        refuse_surrogates(value)
    return value, end


def refuse_surrogates(value: Any) -> None:
    """Refuse half characters, which JSON's escapes can spell, but no file and no terminal show."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise StrictJSONError("a lone surrogate in a string") from None


def _checked(decode: Callable[[str], T], text: str) -> T:
    try:
        return decode(text)
    except json.JSONDecodeError as error:
        raise StrictJSONError(
            f"not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from None
    except RecursionError:
        raise StrictJSONError("nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise StrictJSONError(f"duplicate key '{shortened(key)}'")
            seen.add(key)
    return made


def _refuse(constant: str) -> Any:
    raise StrictJSONError(f"{constant} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise StrictJSONError(f"{shortened(number)} is too large a number")
    return value


def _integer(number: str) -> int | float:
    """Readers that tell integers from floats take -0 for a float: no size and no offset."""
    if len(number) > DIGITS_LIMIT:  # Python needs the square of their number, and stops at 4300
        raise StrictJSONError(f"a number of {len(number)} digits")
    return -0.0 if number == "-0" else int(number)


def _is_deeper(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return levels == 0 or any(_is_deeper(inner, levels - 1) for inner in value)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_constant=_refuse,
    parse_float=_finite,
    parse_int=_integer,
)
