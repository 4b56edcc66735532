"""Layers of one or more models, one upon the other."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, StrictInt

from tensorsurgeon.errors import RecipeError
from tensorsurgeon.operators.families import ChosenLayer, LayerOperator
from tensorsurgeon.recipe import Expression


class Slice(BaseModel):
    """A run of consecutive layers of one model."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    model: Expression = Field(description="where the layers come from")
    layers: tuple[StrictInt, StrictInt] | None = Field(
        default=None, description="[first, end), half open as in Python; all by default"
    )

    def indices(self, depth: int) -> range:
        """The layers' indices in a model of `depth` layers."""
        start, stop = self.layers or (0, depth)
        if start >= stop:
            raise RecipeError(f"'stack': layers [{start}, {stop}] is empty")
        if start < 0 or stop > depth:
            raise RecipeError(
                f"'stack': layers [{start}, {stop}] is out of range",
                fix=f"the model has {depth} layers, so [0, {depth}] is all of them",
            )
        return range(start, stop)


class Stack(LayerOperator):
    """Slices of one or more models, which are runs of layers, from the bottom up.

    What comes before the layers, as the embedding, is the first slice's model's; what comes after
    them, as the final norm and the output head, is the last's. A head that is tied to the embedding
    goes with it. Config and tokenizer are the first's.
    """

    operator: ClassVar[str] = "stack"
    example: ClassVar[str] = "{stack: [{model: a, layers: [0, 24]}, {model: b, layers: [8, 32]}]}"
    body: ClassVar[str | None] = "slices"

    slices: tuple[Slice, ...] = Field(description="the slices, from the bottom up", min_length=1)

    def layers(self, depths: Sequence[int]) -> tuple[ChosenLayer, ...]:
        """Every slice's layers, one slice after the other."""
        return tuple(
            ChosenLayer(operand, layer)
            for operand, piece in enumerate(self.slices)
            for layer in piece.indices(depths[operand])
        )
