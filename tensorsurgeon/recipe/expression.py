"""Expressions: a name, or a mapping with one key, the operator, whose value are its parameters."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from tensorsurgeon.errors import Problem, did_you_mean
from tensorsurgeon.recipe.document import LocatedMap, Mark, kind_of, mark_at
from tensorsurgeon.recipe.schedule import Schedule

EXPRESSION_SCHEMA: dict[str, Any] = {"type": "expression"}
"""Stands for any expression in a field's schema, until all operators are known."""


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
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    operator: ClassVar[str]
    body: ClassVar[str | None] = None
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
class ParseContext:
    """What validation needs to know and what it finds, for one recipe.

    Attributes:
        name: what to call the recipe.
        operators: the operators it may use, by their keys.
        models: the names it defines.
        defined: those of them that are defined so far, as reading goes on.
        problems: what is wrong with it.
    """

    name: str
    operators: Mapping[str, type[Operator]]
    models: frozenset[str] = frozenset()
    defined: set[str] = field(default_factory=set)
    problems: list[tuple[Mark, Problem]] = field(default_factory=list)

    def report(self, mark: Mark, what: str, fix: str = "") -> None:
        """Note a problem at a place in the recipe."""
        where = f"{self.name}:{mark.line}:{mark.column}"
        self.problems.append((mark, Problem(where=where, what=what, fix=fix)))

    def sorted_problems(self) -> list[Problem]:
        """The problems in the order of the recipe's lines."""
        return [problem for _, problem in sorted(self.problems, key=lambda found: found[0])]

    def check_name(self, name: str, mark: Mark) -> None:
        """Note a name that is not defined, or not yet."""
        if name in self.defined:
            return
        if name in self.models:
            what = f"model '{name}' is used before it is defined"
            self.report(mark, what, "move its definition up")
        else:
            self.report(mark, f"there is no model '{name}'", did_you_mean(name, self.defined))

    def report_validation(
        self, error: ValidationError, body: Any, model: type[BaseModel], subject: str
    ) -> None:
        """Note what pydantic found, each at its own line and in our words."""
        found = error.errors(include_url=False)
        for details in found:
            place = details["loc"]
            within = [other for other in found if other["loc"][: len(place)] == place]
            # A list that seems too short only since its items were refused is no second mistake.
            spurious = details["type"] == "too_short" and len(within) > 1
            if details["type"] != "reported" and not spurious:
                self._report_one(details, body, model, subject)

    def _report_one(
        self, details: ErrorDetails, body: Any, model: type[BaseModel], subject: str
    ) -> None:
        path = [step for step in details["loc"] if isinstance(step, str | int)]
        index = details.get("ctx", {}).get("index")
        if index is not None:
            path.append(index)
        parameter = ".".join(map(str, path))
        owner = ".".join(map(str, path[:-1]))
        inside = f"{subject}: {owner}" if owner else subject
        kind = details["type"]
        if kind == "extra_forbidden":
            known = _fields_at(model, path[:-1])
            word = str(path[-1])
            mark = mark_at(body, path, of_key=True)
            self.report(mark, f"{inside} has no parameter '{word}'", did_you_mean(word, known))
        elif kind == "missing" and isinstance(path[-1], int):
            what = f"{inside}: a value is missing, there are only {path[-1]}"
            self.report(mark_at(body, path[:-1]), what)
        elif kind == "missing":
            needs = ", ".join(_fields_at(model, path[:-1]))
            self.report(mark_at(body, path), f"{inside} needs '{path[-1]}'", f"known: {needs}")
        else:
            what, fix = _in_words(details)
            inside = f"{subject}: {parameter}" if parameter else subject
            self.report(mark_at(body, path), f"{inside}: {what}", fix)


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
        known = ", ".join(kind.model_fields)
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


def _in_words(details: ErrorDetails) -> tuple[str, str]:
    """What pydantic found and the fix, as a person would say it."""
    context = details.get("ctx", {})
    if details["type"] == "too_long":
        return f"takes at most {context['max_length']}, not {context['actual_length']}", ""
    if details["type"] == "too_short":
        return f"takes at least {context['min_length']}, not {context['actual_length']}", ""
    if details["type"] == "literal_error":
        known = context["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        given = str(details["input"])
        return f"'{given}' is not known", did_you_mean(given, known)
    if details["type"] in ("tuple_type", "model_type", "dict_type"):
        wanted = "a list" if details["type"] == "tuple_type" else "a mapping"
        return f"takes {wanted}, not {kind_of(details['input'])}", ""
    message = details["msg"].replace("Input should be", "must be")
    return message[:1].lower() + message[1:], ""


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


def _fields_at(model: type[BaseModel], path: list[str | int]) -> list[str]:
    """The parameters known at a path into a model, through tuples of models."""
    here: Any = model
    for step in path:
        if isinstance(step, str) and isinstance(here, type) and issubclass(here, BaseModel):
            field_info = here.model_fields.get(step)
            here = field_info.annotation if field_info else None
        elif isinstance(step, int) and get_origin(here) is tuple:
            here = here.__args__[0]
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []
