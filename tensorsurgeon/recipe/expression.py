"""Expressions: a name, or a mapping with one key, the operator, whose value are its parameters."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from tensorsurgeon.documents import Findings, LocatedMap, Mark, fields_of, kind_of
from tensorsurgeon.errors import did_you_mean
from tensorsurgeon.recipe.schedule import Schedule

EXPRESSION_SCHEMA: dict[str, Any] = {"type": "expression"}
"""Stands for any expression in a field's schema, until all operators are known."""

Matching = Callable[[str], Sequence[str]]
"""Gives the paths of the folders that a pattern matches."""


def as_written(pattern: str) -> Sequence[str]:
    """Only the pattern itself: for those who look at a recipe alone."""
    return (pattern,)


@dataclass(frozen=True, slots=True)
class Reference:
    """A model by its name in the recipe."""

    name: str
    mark: Mark = field(default=Mark(), compare=False)


class Operator(BaseModel):
    """Base of every operator: a subclass's fields are its parameters.

    Attributes:
        operator: its key in a recipe.
        body: the one parameter that may be given as the operator's value itself, as the list
            of `stack` is; None where the value is a mapping of parameters.
        example: how it is written, over the models `base`, `a`, `b` and `c`; for its description.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    operator: ClassVar[str]
    body: ClassVar[str | None] = None
    example: ClassVar[str] = ""
    _mark: Mark = PrivateAttr(default=Mark())

    @property
    def mark(self) -> Mark:
        """Where in the recipe it stands."""
        return self._mark

    def operands(self) -> tuple["Reference | Operator", ...]:
        """The expressions it takes, in the order of its fields."""
        return tuple(_expressions_in(getattr(self, name) for name in type(self).model_fields))

    def schedules(self) -> Iterator[tuple[str, Schedule]]:
        """Its parameters that vary over the model, with their names."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, Schedule):
                    yield name, item


@dataclass(kw_only=True)
class ParseContext(Findings):
    """What validation needs to know and what it finds, for one recipe.

    Attributes:
        operators: the operators it may use, by their keys.
        matching: gives the folders that a pattern matches.
        models: the names it defines.
        defined: those of them that are defined so far, as reading goes on.
    """

    operators: Mapping[str, type[Operator]]
    matching: Matching = as_written
    models: frozenset[str] = frozenset()
    defined: set[str] = field(default_factory=set)

    def check_name(self, name: str, mark: Mark) -> None:
        """Note a name that is not defined, or not yet."""
        if name in self.defined:
            return
        if name in self.models:
            what = f"model '{name}' is used before it is defined"
            self.report(mark, what, "move its definition up")
        else:
            self.report(mark, f"there is no model '{name}'", did_you_mean(name, self.defined))


def parse_expression(raw: Any, info: ValidationInfo) -> Reference | Operator:
    """Read one expression; what is wrong with it goes to the context, at its own place."""
    if isinstance(raw, Reference | Operator):
        return raw
    context = info.context
    assert isinstance(context, ParseContext)
    mark = getattr(raw, "mark", Mark())
    if isinstance(raw, str):
        context.check_name(raw, mark)
        return Reference(str(raw), mark)
    if not isinstance(raw, LocatedMap):
        what = f"a model's name or {{operator: …}}, not {kind_of(raw)}"
        raise PydanticCustomError("expression", "{what}", {"what": what})
    if len(raw) != 1:
        listed = ", ".join(raw)
        context.report(
            mark,
            f"an expression has one key, its operator, and this has {len(raw)}: {listed}",
            "indent the parameters below the operator",
        )
        raise _reported()
    ((operator, body),) = raw.items()
    kind = context.operators.get(operator)
    if kind is None:
        known = did_you_mean(operator, context.operators)
        context.report(raw.key_marks[operator], f"there is no operator '{operator}'", known)
        raise _reported()
    return _parse_operator(kind, raw, body, context)


def _parse_operator(
    kind: type[Operator], raw: LocatedMap, body: Any, context: ParseContext
) -> Operator:
    parameters = body
    if kind.body is not None and not isinstance(body, dict):
        parameters = LocatedMap({kind.body: body})
        parameters.mark = raw.mark
        parameters.key_marks = {kind.body: raw.key_marks[kind.operator]}
        parameters.value_marks = {kind.body: raw.value_marks[kind.operator]}
    elif not isinstance(body, dict):
        known = ", ".join(fields_of(kind))
        context.report(
            raw.value_marks[kind.operator],
            f"'{kind.operator}' takes a mapping of its parameters, not {kind_of(body)}",
            f"known: {known}",
        )
        raise _reported()
    try:
        made = kind.model_validate(parameters, context=context)
    except ValidationError as error:
        context.report_validation(error, parameters, kind, f"'{kind.operator}'")
        raise _reported() from None
    made._mark = raw.key_marks[kind.operator]
    return made


Expression = Annotated[
    Reference | Operator,
    PlainValidator(parse_expression),
    WithJsonSchema(EXPRESSION_SCHEMA),
]
"""A field of this type takes any expression; nested ones are read by the same rules."""


def _reported() -> PydanticCustomError:
    """Tells the model around it to fail without a second report."""
    return PydanticCustomError("reported", "reported")


def _expressions_in(values: Any) -> Iterator[Reference | Operator]:
    for value in values:
        if isinstance(value, Reference | Operator):
            yield value
        elif isinstance(value, tuple):
            yield from _expressions_in(value)
        elif isinstance(value, BaseModel):
            yield from _expressions_in(getattr(value, name) for name in type(value).model_fields)
