"""Task vectors that are pruned, may have their signs elected, and are added to a base."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, StrictBool, model_validator

from tensorsurgeon.operators.families import Base, Tuned, Weighted
from tensorsurgeon.operators.per_model import one_for_each
from tensorsurgeon.operators.pruning import Pruning
from tensorsurgeon.operators.streaming import (
    Inputs,
    Read,
    StreamedOperator,
    by_rows,
    rows_at_a_time,
    spans_of,
)
from tensorsurgeon.operators.weights import summed
from tensorsurgeon.recipe.schedule import AnySchedule, Schedule
from tensorsurgeon.specs import SPAN

if TYPE_CHECKING:
    from tensorsurgeon.kernels import Values

_BALANCED = 1e-8
"""A sum of weights below which it is not divided by."""

Rescale = Literal["none", "l1", "density"]
"""What the kept elements are multiplied by: 1; what restores the sum of magnitudes of all of them;
or 1 / density, which keeps the expectation."""


class TaskVectors(Weighted, StreamedOperator):
    """The base plus the pruned differences of tuned models from it, weighted and put together.

    With elected signs an element of the sum counts only those models whose weighted difference has
    the sign of the weighted sum of all; a sum of 0 counts as positive. Where weights are divided by
    their sum, it is then that of those models; a sum of 0 divides by 1.

    Attributes:
        elected: whether signs are elected.
        whole_rows: whether a pruning wants whole rows at a time.
        each: the parameters that may be one for each model.
        counts: how many passes it takes to know what is kept.
    """

    elected: ClassVar[bool] = False
    whole_rows: ClassVar[bool] = False
    each: ClassVar[tuple[str, ...]] = ("density",)
    counts: ClassVar[int] = 0

    base: Base
    models: Tuned
    normalize: StrictBool = Field(default=False, description="divide the weights by their sum")
    lambda_: AnySchedule = Field(
        default=Schedule.constant(1.0), alias="lambda", description="factor of the whole sum"
    )

    @model_validator(mode="after")
    def _one_for_each_model(self) -> Self:
        for name in self.each:
            values = one_for_each(getattr(self, name), len(self.models), name)
            object.__setattr__(self, name, values)
        return self

    @abstractmethod
    def prunings(self, inputs: Inputs, *args: Any, **parameters: Any) -> list[Pruning]:
        """What is kept of each model, counted where it takes counting."""

    def rescaling(self) -> Rescale:
        """What is done to the elements that are kept."""
        found: Rescale = getattr(self, "rescale", "none")
        return found

    def kept(self, weights: tuple[float, ...], lambda_: float, **_: Any) -> tuple[int, ...]:
        """The models that have a weight."""
        return tuple(i for i, weight in enumerate(weights) if weight) if lambda_ else ()

    def times_read(self, density: tuple[float, ...], **_: Any) -> int:
        """To count, to find the scales, to put together."""
        pruned = any(0 < share < 1 for share in density)
        return 1 + pruned * (self.counts + (self.rescaling() == "l1"))

    def bytes_before(
        self, inputs: Sequence[int], density: tuple[float, ...], **parameters: Any
    ) -> int:
        """Bytes of the base, and of those models of which a part is kept."""
        base, *models = inputs
        pruned = [size for size, share in zip(models, density, strict=True) if 0 < share < 1]
        return (self.times_read(density=density, **parameters) - 1) * (base + sum(pruned))

    def begin(
        self,
        inputs: Inputs,
        weights: tuple[float, ...],
        lambda_: float,
        density: tuple[float, ...],
        **parameters: Any,
    ) -> Read:
        """Count, find the scales, then put spans together."""
        from tensorsurgeon.kernels.task_vectors import Part, Together, combine

        prunings = self.prunings(inputs, density=density, **parameters)
        scales = self._scales(inputs, prunings, density)
        total = summed(weights, self.operator)
        together = Together(
            elect=self.elected,
            normalize=self.normalize,
            divisor=1.0 if abs(total) < _BALANCED else total,
            factor=lambda_,
        )

        def fill(start: int, stop: int, out: "Values") -> None:
            base = inputs.stored(0, start, stop)
            parts = []
            for i, pruning in enumerate(prunings):
                model = inputs.stored(i + 1, start, stop)
                cut = pruning.at(range(start, stop))
                parts.append(Part(span=model, weight=weights[i], scale=scales[i], cut=cut))
            left = combine(base, parts, together, out)
            for pruning, (take, skip) in zip(prunings, left, strict=True):
                pruning.passed(take, skip)

        if self.whole_rows:
            return by_rows(inputs, fill)
        return lambda start, out: fill(start, start + len(out), out)

    def _scales(
        self, inputs: Inputs, prunings: Sequence[Pruning], density: tuple[float, ...]
    ) -> list[float]:
        """What is kept of each model is multiplied by this."""
        how = self.rescaling()
        if how == "density":
            return [1.0 / share if share else 1.0 for share in density]
        pruned = [i for i, share in enumerate(density) if 0 < share < 1 and how == "l1"]
        masses = self._masses(inputs, [(i, prunings[i]) for i in pruned]) if pruned else {}
        return [
            masses[i][0] / masses[i][1] if i in masses and masses[i][1] else 1.0
            for i in range(len(density))
        ]

    def _masses(
        self, inputs: Inputs, prunings: Sequence[tuple[int, Pruning]]
    ) -> dict[int, tuple[float, float]]:
        """Sums of magnitudes, of all elements and of those that are kept: one pass.

        They are summed span after span: with spans of another size their last bits were others.
        """
        from tensorsurgeon.kernels.task_vectors import mass

        sums = {i: (0.0, 0.0) for i, _ in prunings}
        step = rows_at_a_time(inputs.shape) if self.whole_rows else SPAN
        for start, stop in spans_of(inputs.elements, step):
            base = inputs.stored(0, start, stop)
            for i, pruning in prunings:
                model = inputs.stored(i + 1, start, stop)
                every, kept, take, skip = mass(base, model, pruning.at(range(start, stop)))
                pruning.passed(take, skip)
                sums[i] = (sums[i][0] + every, sums[i][1] + kept)
        return sums
