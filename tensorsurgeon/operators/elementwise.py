"""Methods that make each element of the result of that element of the base and the task vectors."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

from tensorsurgeon.operators.families import Base, Tuned
from tensorsurgeon.operators.streaming import BLOCK, Inputs, Read, StreamedOperator, by_block
from tensorsurgeon.recipe import Schedule
from tensorsurgeon.recipe.schedule import Bounds

if TYPE_CHECKING:
    from tensorsurgeon.kernels import Values

SizeSchedule = Annotated[Schedule, Bounds(least=0.0)]
"""A schedule of numbers of 0 or more."""

OfTaskVectors = Callable[[list["Values"]], "Values"]
"""Makes (n,) float64 values of as many of each task vector, which it may overwrite."""

_BETWEEN = 6
"""Blocks that hold what is on its way from the inputs to the result."""


class Elementwise(StreamedOperator):
    """The base plus what becomes of the differences of tuned models from it.

    Where that is zero the base's element stays as it is, down to the sign of a zero.
    """

    base: Base
    models: Tuned

    def bytes_held(self, shape: tuple[int, ...], count: int) -> int:  # noqa: ARG002
        """The blocks that are worked on."""
        return bytes_of_blocks(count)


def bytes_of_blocks(count: int) -> int:
    """Bytes of a block of each of `count` inputs, and of what is made of them."""
    return (count + _BETWEEN) * BLOCK * 8


def by_task_vectors(inputs: Inputs, function: OfTaskVectors) -> Read:
    """Reads the base plus a function of blocks of the task vectors."""
    return by_block(inputs, lambda block: added(block[0], function(task_vectors(block))))


def task_vectors(block: Sequence["Values"]) -> list["Values"]:
    """The models' differences from the base, which comes first, in the models' place."""
    import numpy as np

    base, *models = block
    for model in models:
        np.subtract(model, base, out=model)
    return models


def added(base: "Values", change: "Values") -> "Values":
    """The base plus a change, in the base's place; the change is overwritten.

    What does not change keeps the sign of a zero: -0 plus 0 would be 0, but -0 minus 0 is -0.
    """
    import numpy as np

    np.subtract(0.0, change, out=change)
    return np.subtract(base, change, out=base)
