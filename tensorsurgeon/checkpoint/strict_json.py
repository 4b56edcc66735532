"""JSON from strangers: UTF-8, no duplicate keys, no NaN, and one kind of error."""

import json
import math
from typing import Any


class StrictJSONError(ValueError):
    """Why a text is not the JSON it should be; the caller knows which file it was."""


def parse_object(
    data: bytes | bytearray | memoryview, *, levels: int | None = None
) -> dict[str, Any]:
    """Parse bytes that must hold exactly one JSON object.

    Args:
        data: the bytes.
        levels: most levels of nesting, for what is copied or written again; that recurses.

    Raises:
        StrictJSONError: not UTF-8, not JSON, not an object, a duplicate key, NaN, Infinity or a
            number as large, a lone surrogate, or nested too deeply.
    """
    try:
        text = bytes(data).decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse,
            parse_float=_finite,
            parse_int=_integer,
        )
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
        if levels is not None and _is_deeper(value, levels):
            raise RecursionError
    except UnicodeDecodeError as error:
        raise StrictJSONError(f"not UTF-8 at byte {error.start}") from None
    except UnicodeEncodeError:
        raise StrictJSONError("a lone surrogate in a string") from None
    except json.JSONDecodeError as error:
        raise StrictJSONError(
            f"not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from None
    except RecursionError:
        raise StrictJSONError("nested too deeply") from None
    except StrictJSONError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise StrictJSONError(str(error)) from None
    if not isinstance(value, dict):
        raise StrictJSONError(f"a JSON {type(value).__name__} where an object is expected")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise StrictJSONError(f"duplicate key '{key}'")
            seen.add(key)
    return made


def _refuse(constant: str) -> Any:
    raise StrictJSONError(f"{constant} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise StrictJSONError(f"{number} is too large a number")
    return value


def _integer(number: str) -> int | float:
    """Readers that tell integers from floats take -0 for a float: no size and no offset."""
    return -0.0 if number == "-0" else int(number)


def _is_deeper(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return levels == 0 or any(_is_deeper(inner, levels - 1) for inner in value)
