"""The parameters of operators in words, from the schemas that editors check recipes with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tensorsurgeon.documents import fields_of
from tensorsurgeon.recipe import Operator, Schedule
from tensorsurgeon.recipe.expression import EXPRESSION_SCHEMA
from tensorsurgeon.recipe.schedule import SCHEDULE_TITLE

Schema = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of an operator.

    Attributes:
        name: in recipes; in a list of mappings as `list[].name`.
        type: what it takes, in words.
        varies: whether it may differ from tensor to tensor.
        each: whether it may differ from model to model by `each:`.
        required: whether it has to be given.
        default: what it is where it is not given; None where `meaning` tells.
        meaning: one sentence.
        mergekit: what mergekit calls it, where that is something else.
    """

    name: str
    type: str
    varies: bool
    each: bool
    required: bool
    default: bool | float | str | None
    meaning: str
    mergekit: tuple[str, ...] = ()


def parameters_of(kind: type[Operator]) -> Iterator[Parameter]:
    """The parameters of an operator, those that have to be given first."""
    schema = kind.model_json_schema()
    found = list(_parameters(kind, schema, schema.get("$defs", {})))
    yield from sorted(found, key=lambda one: not one.required)


def _parameters(
    model: type[BaseModel], schema: Schema, definitions: Schema, prefix: str = ""
) -> Iterator[Parameter]:
    for name, field in fields_of(model).items():
        of_field: Schema = schema["properties"][name]
        each = _each(of_field)
        one = of_field if each is None else each["items"]
        varies = _number(one) is not None or _number(one.get("items", {})) is not None
        yield Parameter(
            name=prefix + name,
            type=_type(one),
            varies=varies,
            each=each is not None,
            required=field.is_required(),
            default=None if field.is_required() else _default(field.default),
            meaning=" ".join((field.description or "").split()),
        )
        inner = definitions.get(str(one.get("items", {}).get("$ref", "")).rpartition("/")[2])
        if inner is not None:
            (of_items,) = (m for m in _models_in(field.annotation) if m.__name__ == inner["title"])
            yield from _parameters(of_items, inner, definitions, f"{prefix}{name}[].")


def _each(schema: Schema) -> Schema | None:
    """The list below `each:`, where a parameter may have that."""
    for form in schema.get("anyOf", ()):
        if "each" in form.get("properties", {}):
            found: Schema = form["properties"]["each"]
            return found
    return None


def _number(schema: Schema) -> Schema | None:
    """One number of a schedule; None of what is none."""
    if not schema.get("title", "").startswith(SCHEDULE_TITLE):
        return None
    found: Schema = schema["anyOf"][0]["oneOf"][0]
    return found


def _type(schema: Schema) -> str:
    """What a schema takes, in words."""
    if (number := _number(schema)) is not None:
        return _type(number)
    if EXPRESSION_SCHEMA.items() <= schema.items():
        return "a model"
    if "anyOf" in schema:  # null stands for what is not written down
        return " or ".join(_type(form) for form in schema["anyOf"] if form.get("type") != "null")
    if "enum" in schema:
        *others, last = schema["enum"]
        return f"{', '.join(others)} or {last}"
    if "prefixItems" in schema:
        return f"{len(schema['prefixItems'])} {_plural(_type(schema['prefixItems'][0]))}"
    if schema.get("type") == "array":
        return _list(schema)
    names = {"boolean": "true or false", "string": "text", "integer": "a whole number"}
    return names.get(schema["type"], "a number") + _bounds(schema)


def _list(schema: Schema) -> str:
    inner, least = schema["items"], schema.get("minItems", 0)
    if "$ref" in inner:
        return "a list of mappings"
    if EXPRESSION_SCHEMA.items() <= inner.items():
        return f"{least} model{'s' * (least != 1)} or more"
    return f"a list of {_plural(_type(inner))}"


def _plural(one: str) -> str:
    """Several of what is one; of text there are no several."""
    return f"{one[2:]}s" if one.startswith("a ") else one


def _bounds(schema: Schema) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        return f" from {least:g} to {most:g}"
    if least is not None:
        return f", {least:g} or more"
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if above is not None and below is not None:
        return f" between {above:g} and {below:g}"
    return "" if above is None else f" above {above:g}"


def _default(value: Any) -> bool | float | str | None:
    """A default as a recipe would have it."""
    if isinstance(value, tuple) and len(value) == 1:  # the same for each model
        value = value[0]
    if isinstance(value, Schedule):
        return value.number
    assert isinstance(value, bool | int | float | str | tuple | None), value
    return value if value is None or not isinstance(value, tuple) else None


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a field may hold, also in tuples."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)
