"""The JSON Schema of recipes, for editors that complete and check while one types."""

from collections.abc import Iterable
from typing import Any

from tensorsurgeon.recipe.expression import EXPRESSION_SCHEMA, Operator
from tensorsurgeon.recipe.parse import Recipe, Source
from tensorsurgeon.recipe.schedule import SCHEDULE_TITLE


def json_schema(operators: Iterable[type[Operator]]) -> dict[str, Any]:
    """The schema of a recipe that may use these operators (JSON Schema 2020-12)."""
    schema = Recipe.model_json_schema()
    definitions: dict[str, Any] = schema.setdefault("$defs", {})
    alternatives: list[dict[str, Any]] = [
        {"type": "string", "description": "the name of a model; in `models` also a folder or repo"}
    ]
    kinds: tuple[type[Operator], ...] = (Source, *operators)
    for kind in kinds:
        own = kind.model_json_schema()
        definitions.update(own.pop("$defs", {}))
        summary = (kind.__doc__ or "").strip().splitlines()[0]
        body = own if kind.body is None else _with_short_form(own, kind.body)
        alternatives.append(
            {
                "type": "object",
                "properties": {kind.operator: body},
                "required": [kind.operator],
                "additionalProperties": False,
                "description": summary,
            }
        )
    definitions["Expression"] = {"oneOf": alternatives}
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "TensorSurgeon recipe",
    }
    schedules: dict[str, Any] = {}
    resolved: dict[str, Any] = _with_references(whole, schedules)
    resolved["$defs"] |= schedules
    return resolved


def _with_references(schema: Any, schedules: dict[str, Any]) -> Any:
    """References to definitions wherever an expression is taken, or a schedule.

    Args:
        schema: a part of the whole.
        schedules: the definitions of those that were met, by name; added to.
    """
    if isinstance(schema, list):
        return [_with_references(item, schedules) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if EXPRESSION_SCHEMA.items() <= schema.items():
        rest = {key: value for key, value in schema.items() if key not in EXPRESSION_SCHEMA}
        return {"$ref": "#/$defs/Expression", **rest}
    title = schema.get("title")
    if isinstance(title, str) and title.startswith(SCHEDULE_TITLE):
        schedules[title] = {"anyOf": schema["anyOf"]}
        rest = {key: value for key, value in schema.items() if key not in ("anyOf", "title")}
        return {"$ref": f"#/$defs/{title}", **rest}
    return {key: _with_references(value, schedules) for key, value in schema.items()}


def _with_short_form(schema: dict[str, Any], field: str) -> dict[str, Any]:
    return {"anyOf": [schema["properties"][field], schema]}
