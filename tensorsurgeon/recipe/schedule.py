"""Parameters that vary over the model: a number, a list over the depth, or a list of rules.

A list is spread evenly over the depth and interpolated in between; tensors before the layers take
its first value, tensors after them its last. Rules are tried in order, the first whose glob
matches the whole tensor name wins, and the last one has no `match`. A rule may have one value of
its own, `outside`, for the tensors before and after the layers.
"""

import fnmatch
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

SCHEDULE_TITLE = "Schedule"
"""How the titles of schedules begin in JSON Schema."""

Value = float | tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where in its model a tensor stands.

    Attributes:
        name: the tensor's name in the model that the expression makes.
        layer: index of its layer, or `before` or `after` all of them.
        depth: number of layers.
    """

    name: str
    layer: int | Literal["before", "after"]
    depth: int

    @property
    def fraction(self) -> float:
        """0 at the first layer and before it, 1 at the last layer and after it."""
        if isinstance(self.layer, int):
            return self.layer / max(self.depth - 1, 1)
        return 0.0 if self.layer == "before" else 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A value for the tensors whose whole name the glob matches; no glob matches all of them.

    Attributes:
        match: the glob.
        value: a number, or numbers spread over the depth.
        outside: what tensors outside the layers take; None for the first or the last of `value`.
    """

    match: str | None
    value: Value
    outside: float | None = None

    def at(self, place: Place) -> float:
        """The value at one tensor that it decides for."""
        if self.outside is not None and not isinstance(place.layer, int):
            return self.outside
        return _spread(self.value, place.fraction)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A parameter's value at every tensor of a model."""

    rules: tuple[Rule, ...]

    def at(self, place: Place) -> float:
        """The value at one tensor."""
        return self.rules[self.rule_at(place.name)].at(place)

    def rule_at(self, name: str) -> int:
        """Index of the rule that decides for a tensor; the last one takes what is left."""
        for index, rule in enumerate(self.rules):
            if rule.match is None or glob(rule.match).fullmatch(name):
                return index
        raise AssertionError("a schedule ends in a rule without a match")

    @classmethod
    def constant(cls, value: float) -> "Schedule":
        """The same value everywhere."""
        return cls((Rule(match=None, value=value),))

    @property
    def number(self) -> float | None:
        """The value, where it is the same for any tensor of any model; else None."""
        last = self.rules[-1]
        varies = len(self.rules) > 1 or isinstance(last.value, tuple) or last.outside is not None
        return None if varies or isinstance(last.value, tuple) else last.value

    def __str__(self) -> str:
        return "varies" if self.number is None else f"{self.number:g}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Pydantic annotation: how a Schedule is read, and between which values it must stay."""

    least: float = -math.inf
    most: float = math.inf

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Accept the YAML forms, or a Schedule made in Python."""
        return core_schema.no_info_plain_validator_function(self._parse)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The three forms, for editors."""
        number: dict[str, Any] = {"type": "number"}
        if self.least > -math.inf:
            number["minimum"] = self.least
        if self.most < math.inf:
            number["maximum"] = self.most
        value = {"oneOf": [number, {"type": "array", "items": number, "minItems": 1}]}
        rule = {
            "type": "object",
            "properties": {
                "match": {"type": "string"},
                "value": value,
                "outside": number | {"description": "of tensors before and after the layers"},
            },
            "required": ["value"],
            "additionalProperties": False,
        }
        rules = {
            "type": "array",
            "items": {"oneOf": [rule, value]},
            "contains": {"type": "object"},
        }
        least = f"From{self.least:g}" if "minimum" in number else ""
        most = f"To{self.most:g}" if "maximum" in number else ""
        return {"anyOf": [value, rules], "title": SCHEDULE_TITLE + least + most}

    def _parse(self, raw: Any) -> Schedule:
        if isinstance(raw, Schedule):
            return raw
        if isinstance(raw, list) and any(isinstance(item, dict) for item in raw):
            return Schedule(self._rules(raw))
        return Schedule((Rule(match=None, value=self._value(raw)),))

    def _rules(self, raw: list[Any]) -> tuple[Rule, ...]:
        rules = []
        for index, item in enumerate(raw):
            last = index == len(raw) - 1
            match = _match_of(item, index) if isinstance(item, dict) else None
            if last and match is not None:
                raise _problem("the last rule has no 'match': it is the default", index)
            if not last and match is None:
                raise _problem("only the last rule goes without a 'match'", index)
            try:
                rules.append(self._rule(match, item))
            except PydanticCustomError as error:
                raise _problem(error.message(), index) from None
        return tuple(rules)

    def _rule(self, match: str | None, item: Any) -> Rule:
        if not isinstance(item, dict):
            return Rule(match=match, value=self._value(item))
        if "outside" not in item:
            return Rule(match=match, value=self._value(item["value"]))
        if isinstance(item["outside"], list | dict):
            raise _problem("'outside' is one number")
        outside = self._number(item["outside"])
        return Rule(match=match, value=self._value(item["value"]), outside=outside)

    def _value(self, raw: Any) -> Value:
        if isinstance(raw, list):
            if not raw:
                raise _problem("an empty list gives no value")
            return tuple(self._number(item, index) for index, item in enumerate(raw))
        return self._number(raw)

    def _number(self, raw: Any, index: int | None = None) -> float:
        if isinstance(raw, bool) or not isinstance(raw, int | float):
            what = f"a number, a list of numbers or a list of rules, not {raw!r:.40}"
            raise _problem(what, index)
        try:
            number = float(raw)
        except OverflowError:  # a whole number of hundreds of digits
            number = math.inf
        if not math.isfinite(number):
            raise _problem(f"{number} is not a finite number", index)
        if not self.least <= number <= self.most:
            raise _problem(f"{number:g} is outside {self.least:g} to {self.most:g}", index)
        return number


AnySchedule = Annotated[Schedule, Bounds()]
"""A schedule of any finite numbers."""

UnitSchedule = Annotated[Schedule, Bounds(0.0, 1.0)]
"""A schedule of numbers from 0 to 1."""


def _spread(value: Value, fraction: float) -> float:
    """The value of a list at a fraction of the depth, linearly between its neighbours."""
    if isinstance(value, float):
        return value
    at = fraction * (len(value) - 1)
    left = min(int(at), len(value) - 1)
    right = min(left + 1, len(value) - 1)
    share = at - left
    return value[left] if share == 0 else value[left] * (1 - share) + value[right] * share


def _match_of(rule: dict[str, Any], index: int) -> str | None:
    """The glob of a rule that is written out, the rest of which has the right keys."""
    if unknown := rule.keys() - {"match", "value", "outside"}:
        raise _problem(f"a rule has no key '{min(unknown)}'; known: match, value, outside", index)
    if "value" not in rule:
        raise _problem("a rule needs a 'value'", index)
    match = rule.get("match")
    if match is None:
        return None
    if not isinstance(match, str) or not match:
        raise _problem("'match' is a glob on tensor names", index)
    return str(match)


def _problem(what: str, index: int | None = None) -> PydanticCustomError:
    # The context's index leads the report to the line of the rule.
    context = {} if index is None else {"index": index}
    return PydanticCustomError("schedule", "{what}", {"what": what, **context})


@lru_cache(maxsize=4096)
def glob(pattern: str) -> re.Pattern[str]:
    """A glob as a pattern for the whole name: `*` is any run of characters, `?` is one."""
    # fnmatch's own pattern never goes back behind a star, so that no glob takes for ever; its
    # character sets are not part of the language.
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]")))
