"""Streamed operators on arrays, without a recipe: the engine's own inputs, read from memory."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from tensorsurgeon.execute.inputs import NodeInputs, as_values
from tensorsurgeon.kernels import Scratch, Values
from tensorsurgeon.operators import StreamedOperator
from tensorsurgeon.plan import Streamed, Zeros
from tensorsurgeon.recipe import Place, Reference
from tensorsurgeon.specs import SPAN, DType
from tests.methods.references import Float64

Kind = TypeVar("Kind", bound=StreamedOperator)

PLACE = Place(name="w", layer=0, depth=1)


def based(kind: type[Kind], count: int, **parameters: Any) -> Kind:
    """An operator on a base and so many models, with the parameters a recipe gives it."""
    models = tuple(Reference(f"m{i + 1}") for i in range(count))
    given = {"model": models[0]} if "model" in kind.model_fields else {"models": models}
    return kind.model_validate({"base": Reference("base"), **given, **parameters})


def inputs_of(
    *tensors: Float64,
    operator: StreamedOperator | None = None,
    told: Callable[[int], None] = lambda count: None,
) -> NodeInputs:
    """What an operator sees of tensors of one shape; `told` hears how many elements it reads."""
    shape = tensors[0].shape
    parts = tuple(Zeros(dtype=DType.F64, shape=shape) for _ in tensors)
    node = Streamed(
        operator=cast("StreamedOperator", operator), parameters=(), inputs=parts, name="w", seed=0
    )
    flat = [np.ascontiguousarray(tensor, np.float64).reshape(-1) for tensor in tensors]

    def read(which: Any, start: int, buffer: Values) -> Any:
        told(len(buffer))
        buffer[:] = flat[which][start : start + len(buffer)]
        return as_values(buffer)

    numbers = cast("Any", tuple(range(len(tensors))))
    return NodeInputs(node, numbers, read, Scratch(len(tensors) + 1), lambda text: None)


def merged(
    operator: StreamedOperator, *tensors: Float64, told: Callable[[int], None] = lambda count: None
) -> Float64:
    """What an operator makes of a base and of models."""
    parameters = dict(operator.parameters_at(PLACE))
    with np.errstate(all="ignore"):
        read = operator.begin(inputs_of(*tensors, operator=operator, told=told), **parameters)
        out = np.empty(tensors[0].size)
        for start in range(0, len(out), SPAN):
            read(start, out[start : start + SPAN])
    return out.reshape(tensors[0].shape)
