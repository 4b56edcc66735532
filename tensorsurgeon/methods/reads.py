"""How often a method reads its inputs, found by asking it with its example and what that may be."""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any, Literal, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from tensorsurgeon.documents import load_document
from tensorsurgeon.methods.catalogue import KNOWN
from tensorsurgeon.operators import (
    GeometricOperator,
    Lora,
    LowRank,
    MergeOperator,
    StreamedOperator,
)
from tensorsurgeon.operators.per_model import PerModel
from tensorsurgeon.recipe import Expression, Operator, Place, Schedule
from tensorsurgeon.recipe.expression import ParseContext
from tensorsurgeon.recipe.schedule import Bounds

_SHAPE, _PLACE = (2, 2), Place(name="", layer=0, depth=1)
"""A matrix of a layer: a method may take what is no matrix for one vector."""


def example_of(kind: type[Operator]) -> Operator:
    """The example of an operator, as it is read in a recipe."""
    raw = load_document(kind.example.encode(), "example", needs="an operator")
    context = ParseContext(name="example", operators=KNOWN, matching=_matching)
    found = TypeAdapter(Expression).validate_python(raw, context=context)
    assert isinstance(found, Operator)
    return found


def _matching(pattern: str) -> list[str]:
    """As many folders as an example may want."""
    return [pattern.replace("*", str(number)) for number in range(100)]


def times_read(operator: Operator) -> int:
    """How often an operator reads the inputs of a matrix, with its parameters."""
    if isinstance(operator, MergeOperator):
        operator = operator.for_tensor(_PLACE, _SHAPE)
    if isinstance(operator, StreamedOperator):
        return operator.times_read(**dict(operator.parameters_at(_PLACE)))
    return 2 if isinstance(operator, GeometricOperator) else 1


def times_read_at_all(operator: Operator) -> set[int]:
    """How often it reads them with whatever parameters."""
    if isinstance(operator, Lora):  # what it does follows from the adapter
        return {
            LowRank(
                name="", base=operator.model, rank=1, transposed=transposed, with_magnitudes=dora
            ).times_read()
            for transposed, dora in product((False, True), repeat=2)
        }
    fields = type(operator).model_fields
    choices = [list(_choices(field, getattr(operator, name))) for name, field in fields.items()]
    return {
        times_read(operator.model_copy(update=dict(zip(fields, values, strict=True))))
        for values in product(*choices)
    }


def _choices(field: FieldInfo, value: Any) -> Iterator[Any]:
    """A parameter as it is, and whatever else may decide how often inputs are read."""
    yield value
    if get_origin(field.annotation) is Literal:
        yield from get_args(field.annotation)
    elif isinstance(value, bool):
        yield not value
    for bounds in field.metadata:
        if isinstance(bounds, Bounds | PerModel):
            ends = (
                Schedule.constant(end) for end in (bounds.least, bounds.most) if math.isfinite(end)
            )
            yield from ((end,) * len(value) if isinstance(value, tuple) else end for end in ends)
