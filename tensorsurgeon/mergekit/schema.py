"""The JSON Schema of mergekit's recipes, as far as they are taken here; for editors."""

from typing import Any

from tensorsurgeon.mergekit.document import Document
from tensorsurgeon.mergekit.methods import METHODS, Form, Method, Parameter, Scope


def mergekit_schema() -> dict[str, Any]:
    """The schema of one document, or of a list of them (JSON Schema 2020-12)."""
    document = Document.model_json_schema()
    definitions: dict[str, Any] = document.pop("$defs")
    document["properties"]["merge_method"] = {"enum": list(METHODS)}
    document["allOf"] = [
        {
            "if": {"properties": {"merge_method": {"const": method.name}}},
            "then": {"properties": {"parameters": _settings(method)}},
        }
        for method in METHODS.values()
    ]
    definitions["Document"] = document
    reference = {"$ref": "#/$defs/Document"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mergekit recipe",
        "anyOf": [reference, {"type": "array", "items": reference, "minItems": 1}],
        "$defs": definitions,
    }


def _settings(method: Method) -> dict[str, Any]:
    """What may stand below the `parameters` of a document with this method."""
    return {
        "type": ["object", "null"],
        "properties": {one.name: _setting(one) for one in method.parameters},
        "additionalProperties": False,
    }


def _setting(parameter: Parameter) -> dict[str, Any]:
    """A scalar, a list over the depth, or conditions."""
    scalar = _scalar(parameter)
    value = {"anyOf": [scalar, {"type": "array", "items": scalar, "minItems": 1}]}
    condition = {
        "type": "object",
        "properties": {"filter": {"type": ["string", "null"]}, "value": value},
        "required": ["value"],
        "additionalProperties": False,
    }
    conditions = {"type": "array", "items": condition, "minItems": 1}
    found: dict[str, Any] = {"anyOf": [*value["anyOf"], condition, conditions]}
    if parameter.default is not None:
        found["default"] = parameter.default
    whose = {
        Scope.MERGE: "of the whole merge",
        Scope.MODEL: "of each model",
        Scope.TUNED: "of each model but the base",
    }
    return found | {"description": whose[parameter.scope]}


def _scalar(parameter: Parameter) -> dict[str, Any]:
    if parameter.form in (Form.SWITCH, Form.NOTHING):
        return {"type": ["boolean", "number"]}
    bounds = {"minimum": parameter.least, "maximum": parameter.most}
    finite = {key: bound for key, bound in bounds.items() if abs(bound) != float("inf")}
    return {"type": "integer" if parameter.form is Form.COUNT else "number", **finite}
