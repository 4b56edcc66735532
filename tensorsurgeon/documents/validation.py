"""What pydantic finds wrong with a document, told at its line and column and in our words."""

from dataclasses import dataclass, field
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from tensorsurgeon.documents.located import Mark, kind_of, mark_at
from tensorsurgeon.errors import Problem, did_you_mean


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
