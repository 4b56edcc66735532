"""What an operator can be: one that chooses layers, or one of the families of merge methods.

A new method is one file with a subclass: its fields are the recipe's parameters, and one small
method is the mathematics. Reading, streaming and rounding are the engine's.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from tensorsurgeon.recipe import Expression, Operator, Place, Schedule

Gram = Sequence[Sequence[float]]
"""(n, n) dot products of the n flattened inputs of one tensor, summed in float64."""

Parameters = tuple[tuple[str, float | tuple[float, ...]], ...]
"""An operator's scheduled parameters at one tensor, by name."""


@dataclass(frozen=True, slots=True)
class Coefficients:
    """The share of each input in an output tensor: output = sum of values[i] * input[i].

    Attributes:
        values: one for each input, float64.
        note: what the user should know about how they came to be; empty as a rule.
    """

    values: tuple[float, ...]
    note: str = ""


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

    Attributes:
        idempotent: whether merging a model with itself gives the model back.
    """

    idempotent: ClassVar[bool] = False

    models: tuple[Expression, ...] = Field(description="the models to merge", min_length=2)

    def is_idempotent(self) -> bool:
        """Whether merging a model with itself gives the model back, with these parameters."""
        return self.idempotent

    def parameters_at(self, place: Place) -> Parameters:
        """The scheduled parameters at one tensor."""

        def resolve(value: Any) -> float | tuple[float, ...]:
            if isinstance(value, Schedule):
                return value.at(place)
            return tuple(item.at(place) for item in value)

        names = dict.fromkeys(name for name, _ in self.schedules())
        return tuple((name, resolve(getattr(self, name))) for name in names)


class WeightedOperator(MergeOperator):
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

    @abstractmethod
    def foregone(self, *args: Any, **parameters: Any) -> Coefficients | None:
        """The coefficients where they are the same for any inputs, so that none is read twice."""
