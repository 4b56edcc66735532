"""What an operator can be: one that chooses layers, or one of the families of merge methods.

A new method is one file with a subclass: its fields are the recipe's parameters, and one small
method is the mathematics. Reading, streaming and rounding are the engine's.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from tensorsurgeon.errors import RecipeError
from tensorsurgeon.recipe import Expression, Operator, Place, Reference, Schedule
from tensorsurgeon.recipe.schedule import AnySchedule

Gram = Sequence[Sequence[float]]
"""(n, n) dot products of the n flattened inputs of one tensor, summed in float64; where there is
a base, of their differences from it."""

Parameters = tuple[tuple[str, float | tuple[float, ...]], ...]
"""An operator's scheduled parameters at one tensor, by name."""

Models = Annotated[tuple[Expression, ...], Field(min_length=2, description="the models to merge")]
"""Two models or more."""

Tuned = Annotated[tuple[Expression, ...], Field(min_length=1, description="the tuned models")]
"""One model or more, beside the base they were tuned from."""

Base = Annotated[Expression, Field(description="the model the others were tuned from")]
"""The origin of task vectors; it also gives config and tokenizer."""


@dataclass(frozen=True, slots=True)
class Coefficients:
    """The share of each input in an output tensor: output = sum of values[i] * input[i].

    Where there is a base, of the differences from it: output = base + sum of values[i] * (input[i]
    - base).

    Attributes:
        values: one for each input, float64.
        note: what the user should know about how they came to be; empty as a rule.
    """

    values: tuple[float, ...]
    note: str = ""

    def of_inputs(self, *, based: bool) -> tuple[float, ...]:
        """The share of each input itself; `based`, of the base first.

        Raises:
            RecipeError: their sum is more than a float64 holds.
        """
        if not based:
            return self.values
        try:
            return (1.0 - math.fsum(self.values), *self.values)
        except OverflowError:
            raise RecipeError("the weights are too large to be summed") from None


@dataclass(frozen=True, slots=True)
class ChosenLayer:
    """One layer of the model a `LayerOperator` makes.

    Attributes:
        operand: which of the operator's expressions it comes from.
        layer: its index there.
        zeroed: whether what the layer adds to the residual stream is zeroed.
    """

    operand: int
    layer: int
    zeroed: bool = False


class LayerOperator(Operator):
    """Makes a model out of layers of others. No number changes, so tensors are only copied."""

    @abstractmethod
    def layers(self, depths: Sequence[int]) -> tuple[ChosenLayer, ...]:
        """The new model's layers, in order.

        Args:
            depths: number of layers of each operand.

        Raises:
            RecipeError: a layer that is not there, or none chosen.
        """

    def zero_patterns(self) -> tuple[str, ...]:
        """Globs on names inside a layer that are zeroed; empty for the family's own."""
        return ()


class MergeOperator(Operator):
    """Makes each tensor from the tensors of that name in all its models.

    A subclass has `models`, and may have a `base`: the model they are taken relative to.

    Attributes:
        idempotent: whether merging a model with itself gives the model back.
    """

    idempotent: ClassVar[bool] = False

    @property
    def origin(self) -> Reference | Operator | None:
        """The base, where there is one."""
        base: Reference | Operator | None = getattr(self, "base", None)
        return base

    def operands(self) -> tuple[Reference | Operator, ...]:
        """The models it takes; the base first, which gives config and tokenizer."""
        inner = super().operands()
        base = self.origin
        return inner if base is None else (base, *(one for one in inner if one is not base))

    def is_idempotent(self) -> bool:
        """Whether merging a model with itself gives the model back, with these parameters."""
        return self.idempotent or self.origin is not None

    def for_tensor(self, place: Place, shape: tuple[int, ...]) -> "MergeOperator":  # noqa: ARG002
        """What makes one tensor: this, or another operator on the same operands.

        Args:
            place: where the tensor stands.
            shape: its shape.
        """
        return self

    def parameters_at(self, place: Place) -> Parameters:
        """The scheduled parameters at one tensor."""

        def resolve(value: Any) -> float | tuple[float, ...]:
            if isinstance(value, Schedule):
                return value.at(place)
            return tuple(item.at(place) for item in value)

        names = dict.fromkeys(name for name, _ in self.schedules())
        return tuple((name, resolve(getattr(self, name))) for name in names)


class Weighted(MergeOperator):
    """A merge whose models have a weight each."""

    models: Models
    weights: tuple[AnySchedule, ...] = Field(
        default=(), description="one for each model, any numbers; all 1 by default"
    )

    @model_validator(mode="after")
    def _one_weight_a_model(self) -> Self:
        if not self.weights:
            equal = tuple(Schedule.constant(1.0) for _ in self.models)
            object.__setattr__(self, "weights", equal)
        if len(self.weights) != len(self.models):
            raise PydanticCustomError(
                "weights",
                "there are {models} models and {weights} weights",
                {"models": len(self.models), "weights": len(self.weights)},
            )
        return self


class SumOperator(MergeOperator):
    """A sum whose coefficients follow from the recipe alone. One pass over the inputs."""

    @abstractmethod
    def coefficients(self, *args: Any, **parameters: Any) -> Coefficients:
        """The coefficients at one tensor, from its scheduled parameters.

        Raises:
            RecipeError: parameters that together make no sense.
        """


class GeometricOperator(MergeOperator):
    """A sum whose coefficients follow from how the inputs lie to each other. Two passes."""

    @abstractmethod
    def coefficients(self, gram: Gram, *args: Any, **parameters: Any) -> Coefficients:
        """The coefficients at one tensor, from its Gram matrix and scheduled parameters."""

    def foregone(self, *args: Any, **parameters: Any) -> Coefficients | None:  # noqa: ARG002
        """The coefficients where they are the same for any inputs, so that none is read twice."""
        return None
