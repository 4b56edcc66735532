"""What pydantic finds wrong with a document, told at its line and column and in our words."""

import re
from dataclasses import dataclass, field
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from tensorsurgeon.documents.located import Mark, kind_of, mark_at
from tensorsurgeon.errors import Problem, did_you_mean, shortened


@dataclass(kw_only=True)
class Findings:
    """What is found wrong with one document, while it is read.

    Attributes:
        name: what to call the document.
        problems: what is wrong with it.
    """

    name: str
    problems: list[tuple[Mark, Problem]] = field(default_factory=list)

    def report(self, mark: Mark, what: str, fix: str = "") -> None:
        """Note a problem at a place in the recipe."""
        where = f"{self.name}:{mark.line}:{mark.column}"
        self.problems.append((mark, Problem(where=where, what=what, fix=fix)))

    def sorted_problems(self) -> list[Problem]:
        """The problems in the order of the recipe's lines."""
        return [problem for _, problem in sorted(self.problems, key=lambda found: found[0])]

    def report_validation(
        self, error: ValidationError, body: Any, model: type[BaseModel], subject: str = ""
    ) -> None:
        """Note what pydantic found, each at its own line and in our words.

        Args:
            error: what it found.
            body: the part of the document that it read.
            model: what it is read as.
            subject: what to call that part; nothing where the document's name says it.
        """
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
        context = details.get("ctx", {})
        path += context.get("inside", ())
        if "index" in context:
            path.append(context["index"])
        owner = ".".join(map(str, path[:-1]))
        inside = ": ".join(filter(None, (subject, owner)))
        begun = f"{inside} " if inside else ""
        kind = details["type"]
        if kind == "extra_forbidden":
            known = _fields_at(model, path[:-1])
            word = str(path[-1])
            mark = mark_at(body, path, of_key=True)
            self.report(mark, f"{begun}has no parameter '{word}'", did_you_mean(word, known))
        elif kind == "missing" and isinstance(path[-1], int):
            what = f"{inside}: a value is missing, there are only {path[-1]}"
            self.report(mark_at(body, path[:-1]), what)
        elif kind == "missing":
            needs = ", ".join(_fields_at(model, path[:-1]))
            self.report(mark_at(body, path), f"{begun}needs '{path[-1]}'", f"known: {needs}")
        else:
            what, fix = _in_words(details)
            parts = (subject, ".".join(map(str, path)), what)
            self.report(mark_at(body, path), ": ".join(filter(None, parts)), fix)


_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("above", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("below", "lt"),
}
"""By pydantic's names: a bound in words, and where it tells which."""

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "model": "a mapping",
    "dict": "a mapping",
}
"""By how pydantic's names begin: what is wanted, as `kind_of` calls it."""

_SWITCHES = {"true": "on", "false": "off"}
"""What is meant by truth where a word is wanted."""

_KIND = re.compile(r"([a-z]+)_(?:type|parsing|parsing_size|from_float)")


def _in_words(details: ErrorDetails) -> tuple[str, str]:
    """What pydantic found and the fix, as a person would say it."""
    context, kind, given = details.get("ctx", {}), details["type"], details["input"]
    if kind in ("too_long", "too_short"):
        bound = "max_length" if kind == "too_long" else "min_length"
        most = "at most" if kind == "too_long" else "at least"
        return f"takes {most} {context[bound]}, not {context['actual_length']}", ""
    if kind == "literal_error":
        known = context["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        word = _spelled(given)
        meant = _SWITCHES.get(word, word)
        return f"'{word}' is not known", did_you_mean(meant if meant in known else word, known)
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"{words} {context[bound]:g}, not {_spelled(given)}", ""
    if (found := _KIND.fullmatch(kind)) and found[1] in _KINDS:
        takes = "takes " if found[1] in ("tuple", "model", "dict") else ""
        broken = found[1] == "int" and isinstance(given, float)
        shown = _spelled(given) if broken else kind_of(given)
        return f"{takes}{_KINDS[found[1]]}, not {shown}", ""
    message = details["msg"].replace("Input should be", "must be")
    return message[:1].lower() + message[1:], ""


def _spelled(value: object) -> str:
    """A scalar as the document spells it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return shortened(str(value))


def _fields_at(model: type[BaseModel], path: list[str | int]) -> list[str]:
    """The parameters known at a path into a model, through tuples of models."""
    here: Any = model
    for step in path:
        if isinstance(step, str) and isinstance(here, type) and issubclass(here, BaseModel):
            field_info = fields_of(here).get(step)
            here = field_info.annotation if field_info else None
        elif isinstance(step, int) and get_origin(here) is tuple:
            here = here.__args__[0]
    return list(fields_of(here)) if isinstance(here, type) and issubclass(here, BaseModel) else []


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A model's fields by the names that documents have for them."""
    return {known.alias or name: known for name, known in model.model_fields.items()}
