"""The recipe language: YAML with positions, expressions, schedules, and the JSON Schema."""

from tensorsurgeon.recipe.expression import Expression, Operator, Reference
from tensorsurgeon.recipe.parse import Output, Recipe, Source, parse_recipe, read_recipe
from tensorsurgeon.recipe.schedule import Place, Schedule, UnitSchedule
from tensorsurgeon.recipe.schema import json_schema

__all__ = [
    "Expression",
    "Operator",
    "Output",
    "Place",
    "Recipe",
    "Reference",
    "Schedule",
    "Source",
    "UnitSchedule",
    "json_schema",
    "parse_recipe",
    "read_recipe",
]
