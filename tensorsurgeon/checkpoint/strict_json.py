"""JSON from strangers: UTF-8, no duplicate keys, no NaN, and one kind of error."""

import json
from typing import Any


class StrictJSONError(ValueError):
    """Why a text is not the JSON it should be; the caller knows which file it was."""


def parse_object(data: bytes | bytearray | memoryview) -> dict[str, Any]:
    """Parse bytes that must hold exactly one JSON object.

    Raises:
        StrictJSONError: not UTF-8, not JSON, not an object, a duplicate key, NaN or Infinity, or
            nested too deeply.
    """
    try:
        text = bytes(data).decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise StrictJSONError(f"not UTF-8 at byte {error.start}") from None
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
