"""Parameters that are one for all models, or one for each."""

import math
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from tensorsurgeon.recipe.schedule import Bounds, Schedule


@dataclass(frozen=True, slots=True)
class PerModel:
    """Pydantic annotation: a schedule, or `each:` with a list of them, one for each model.

    What is read is a tuple: of one schedule, or of as many as were listed.
    """

    least: float = -math.inf
    most: float = math.inf

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Accept the YAML forms, or a Schedule or several made in Python."""
        return core_schema.no_info_plain_validator_function(self._parse)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """A schedule, or a mapping of several, for editors."""
        one = Bounds(self.least, self.most).__get_pydantic_json_schema__(schema, handler)
        several = {"type": "array", "items": one, "minItems": 1}
        each = {
            "type": "object",
            "properties": {"each": several},
            "required": ["each"],
            "additionalProperties": False,
        }
        return {"anyOf": [one, each]}

    def _parse(self, raw: Any) -> tuple[Schedule, ...]:
        read = Bounds(self.least, self.most)._parse
        if isinstance(raw, tuple):
            return tuple(map(read, raw))
        if not isinstance(raw, dict):
            return (read(raw),)
        if raw.keys() != {"each"} or not isinstance(raw["each"], list) or not raw["each"]:
            raise PydanticCustomError(
                "per_model", "a value for all models, or {each: [one for each model]}", {}
            )
        return tuple(self._one(item, index) for index, item in enumerate(raw["each"]))

    def _one(self, raw: Any, index: int) -> Schedule:
        try:
            return Bounds(self.least, self.most)._parse(raw)
        except PydanticCustomError as error:
            # The steps lead the report to the line.
            context = {**(error.context or {}), "inside": ("each", index)}
            raise PydanticCustomError(error.type, error.message_template, context) from None


PerModelShare = Annotated[tuple[Schedule, ...], PerModel(0.0, 1.0)]
"""Numbers from 0 to 1, one for all models or one for each."""


def one_for_each(values: tuple[Schedule, ...], models: int, name: str) -> tuple[Schedule, ...]:
    """As many schedules as there are models."""
    if len(values) == 1:
        return values * models
    if len(values) != models:
        raise PydanticCustomError(
            "per_model",
            "there are {models} models and {values} values of {name}",
            {"models": models, "values": len(values), "name": name},
        )
    return values
