"""Parameters as mergekit's documents give them: conditions on tensor names, and their values."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tensorsurgeon.documents import Findings, LocatedList, LocatedMap, Mark, kind_of
from tensorsurgeon.errors import did_you_mean
from tensorsurgeon.mergekit.building import Part, listing
from tensorsurgeon.mergekit.methods import Form, Method, Parameter, Scope


@dataclass(frozen=True, slots=True)
class Condition:
    """A value, and of which tensors.

    Attributes:
        filter: what their names have in them; None for all tensors.
        value: a number, a list of numbers over the depth, or true or false.
        mark: where the condition begins.
    """

    filter: str | None
    value: Part
    mark: Mark


Settings = Mapping[str, tuple[Condition, ...]]
"""The parameters that one level of a document sets, by their names: first condition first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """Where parameters stand.

    Attributes:
        of: a model, or a slice, a module or the whole document.
        is_base: whether that model is the base.
    """

    of: Literal["model", "merge"]
    is_base: bool = False


def read_settings(
    raw: LocatedMap | None, method: Method, level: Level, findings: Findings
) -> Settings:
    """The parameters of one level; what is wrong with them, or without effect, is reported."""
    found: dict[str, tuple[Condition, ...]] = {}
    for name, value in (raw or {}).items():
        assert raw is not None
        mark = raw.key_marks[name]
        parameter = method.parameter(name)
        if parameter is None:
            known = [one.name for one in method.parameters]
            what = f"'{method.name}' has no parameter '{name}', and mergekit ignores it"
            findings.report(mark, what, did_you_mean(name, known) or "remove it")
        elif _has_effect(parameter, level, mark, findings):
            part = Part(value, raw.value_marks[name])
            found[name] = tuple(_conditions(parameter, part, findings))
    return found


def _has_effect(parameter: Parameter, level: Level, mark: Mark, findings: Findings) -> bool:
    """Whether mergekit looks for a parameter at such a place."""
    if level.of == "merge" or parameter.scope is Scope.MODEL:
        return True
    if parameter.scope is Scope.MERGE:
        what = f"'{parameter.name}' is one for the whole merge: mergekit ignores it at a model"
        findings.report(mark, what, "put it below the 'parameters' of the document or the slice")
        return False
    if level.is_base:
        what = f"the base has no '{parameter.name}': mergekit ignores it"
        findings.report(mark, what, "remove it")
    return not level.is_base


def _conditions(parameter: Parameter, given: Part, findings: Findings) -> Iterator[Condition]:
    """The conditions of one setting, in their order."""
    raw = given.value
    listed = isinstance(raw, LocatedList) and any(isinstance(item, dict) for item in raw)
    parts = [Part(*both) for both in zip(raw, raw.item_marks, strict=True)] if listed else [given]
    filters: list[str] = []
    for part in parts:
        filter_, value = None, part
        if listed or isinstance(part.value, LocatedMap):
            if (read := _read_condition(parameter, part, findings)) is None:
                continue
            filter_, value = read
        if (reason := _unreached(filter_, filters)) is not None:
            findings.report(part.mark, f"{parameter.name}: {reason}, and mergekit ignores this")
            continue
        filters.append("" if filter_ is None else filter_)
        if (checked := _read_value(parameter, value, findings)) is not None:
            yield Condition(filter_, checked, part.mark)


def _unreached(filter_: str | None, before: Sequence[str]) -> str | None:
    """Which of the filters before it takes all that one matches."""
    taken = next((other for other in before if other in (filter_ or "")), None)
    if taken is None:
        return None
    return f"'{taken}' above takes these tensors" if taken else "all tensors have a value above"


def _read_condition(
    parameter: Parameter, part: Part, findings: Findings
) -> tuple[str | None, Part] | None:
    raw = part.value
    if not isinstance(raw, LocatedMap):
        what = f"{parameter.name}: {{filter: …, value: …}}, not {kind_of(raw)}"
        findings.report(part.mark, what, f"- value: {raw}")
        return None
    for key in raw.keys() - {"filter", "value"}:
        what = f"{parameter.name}: mergekit ignores '{key}'"
        findings.report(raw.key_marks[key], what, did_you_mean(key, ("filter", "value")))
    if "value" not in raw:
        findings.report(part.mark, f"{parameter.name}: a filter needs a 'value'")
        return None
    filter_ = raw.get("filter")
    if filter_ in (None, "*", ""):
        return None, Part(raw["value"], raw.value_marks["value"])
    if not isinstance(filter_, str) or set("*?") & set(filter_):
        what = f"{parameter.name}: a filter is a part of tensor names, and '*' or '?' is in none"
        findings.report(raw.value_marks["filter"], what, "as self_attn or mlp.down_proj")
        return None
    return str(filter_), Part(raw["value"], raw.value_marks["value"])


def _read_value(parameter: Parameter, part: Part, findings: Findings) -> Part | None:
    """A value as it is needed; a list of one value is that value."""
    if not isinstance(part.value, LocatedList):
        return _read_scalar(parameter, part, findings)
    given = [Part(*both) for both in zip(part.value, part.value.item_marks, strict=True)]
    if not given:
        findings.report(part.mark, f"{parameter.name}: an empty list, which mergekit ignores")
        return None
    read = [_read_scalar(parameter, item, findings) for item in given]
    items = [item for item in read if item is not None]
    if len(items) < len(given):
        return None
    return items[0] if len(items) == 1 else listing(part.mark, items)


_TRUE = frozenset({"true", "yes", "on", "y", "t", "1"})
_FALSE = frozenset({"false", "no", "off", "n", "f", "0"})


def _read_scalar(parameter: Parameter, part: Part, findings: Findings) -> Part | None:
    """A number or a switch, where mergekit would take it for one."""
    if parameter.form in (Form.SWITCH, Form.NOTHING):
        word = str(part.value).lower().removesuffix(".0")
        if word in _TRUE | _FALSE:
            return Part(word in _TRUE, part.mark)
        if parameter.form is Form.NOTHING:
            return part
        findings.report(part.mark, f"{parameter.name}: true or false, not {kind_of(part.value)}")
        return None
    number = _number(part.value)
    if number is None:
        findings.report(part.mark, f"{parameter.name}: a number, not {kind_of(part.value)}")
    elif not math.isfinite(number):
        findings.report(part.mark, f"{parameter.name}: {number} is not a finite number")
    elif not parameter.least <= number <= parameter.most:
        range_ = f"{parameter.least:g} to {parameter.most:g}"
        findings.report(part.mark, f"{parameter.name}: {number:g} is outside {range_}")
    elif parameter.form is Form.COUNT and number != int(number):
        findings.report(part.mark, f"{parameter.name}: a whole number, not {number:g}")
    else:
        return Part(int(number) if parameter.form is Form.COUNT else number, part.mark)
    return None


def _number(raw: Any) -> float | int | None:
    """A number as mergekit takes one: text that spells it, and true for 1, as well."""
    if isinstance(raw, bool):
        return int(raw)
    if not isinstance(raw, int | float | str):
        return None
    try:
        return raw if isinstance(raw, int) and float(raw) == raw else float(raw)
    except ValueError:
        return None
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf
