"""A model taken over where it is near to the base."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from tensorsurgeon.operators.elementwise import SizeSchedule, bytes_of_blocks
from tensorsurgeon.operators.families import Base
from tensorsurgeon.operators.streaming import Inputs, Read, StreamedOperator, by_block
from tensorsurgeon.recipe import Expression

if TYPE_CHECKING:
    from tensorsurgeon.kernels import Values


class Nearswap(StreamedOperator):
    """NearSwap: each element moves from the base to the model, by t at most.

    (1 - w) * base + w * model with w = min(1, t / |model - base|), which is the model's element
    where the two are within t of each other. From QuartetAnemoi-70B-t0.0001 (alchemonaut 2024).
    """

    operator: ClassVar[str] = "nearswap"
    example: ClassVar[str] = "{nearswap: {base: base, model: a, t: 0.0001}}"

    base: Base
    model: Annotated[Expression, Field(description="the model that is taken over")]
    t: SizeSchedule = Field(
        description="how far an element moves at most, in the weights' own units"
    )

    def kept(self, t: float) -> tuple[int, ...] | None:
        """None where nothing may move."""
        return None if t else ()

    def begin(self, inputs: Inputs, t: float) -> Read:
        """The model's elements, not below base - t and not above base + t."""

        def moved(block: list["Values"]) -> "Values":
            import numpy as np

            base, model = block
            np.maximum(model, base - t, out=model)
            return np.minimum(model, np.add(base, t, out=base), out=model)

        return by_block(inputs, moved)

    def bytes_held(self, shape: tuple[int, ...], count: int) -> int:  # noqa: ARG002
        """The blocks that are worked on."""
        return bytes_of_blocks(count)
