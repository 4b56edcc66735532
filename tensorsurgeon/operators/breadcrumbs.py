"""Task vectors without their largest and without their smallest elements."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from tensorsurgeon.operators.per_model import PerModelShare
from tensorsurgeon.operators.pruning import Outlying, Pruning, by_rank, bytes_to_rank
from tensorsurgeon.operators.streaming import Inputs
from tensorsurgeon.operators.task_vectors import TaskVectors
from tensorsurgeon.recipe import Schedule


class Breadcrumbs(TaskVectors):
    """Model Breadcrumbs: task vectors without their largest and smallest elements.

    Of the n elements of a tensor's difference from the base the floor(gamma * n) largest are left
    out, and of the others the max(1, floor(density * n)) largest are kept; where there are not as
    many, fewer outliers are left out. With a density of 1 all are kept. Of equal ones those with
    the lowest flat index come first (Davari and Belilovsky 2023, arXiv:2312.06795).
    """

    operator: ClassVar[str] = "breadcrumbs"
    example: ClassVar[str] = (
        "{breadcrumbs: {base: base, models: [a, b], density: 0.9, gamma: 0.02}}"
    )
    counts: ClassVar[int] = 2
    each: ClassVar[tuple[str, ...]] = ("density", "gamma")

    density: PerModelShare = Field(
        default=(Schedule.constant(1.0),),
        description="share of the elements that are kept; 1 keeps all",
    )
    gamma: PerModelShare = Field(
        default=(Schedule.constant(0.01),),
        description="share of the elements, the largest, that are left out",
    )
    rescale: Literal["none", "l1"] = Field(
        default="none",
        description="l1: multiply what is kept so that its magnitudes sum up to those of all",
    )

    def bytes_held(self, shape: tuple[int, ...], count: int) -> int:  # noqa: ARG002
        """Counts of ranks, for two thresholds."""
        return bytes_to_rank(count - 1, edges=2)

    def prunings(
        self, inputs: Inputs, density: tuple[float, ...], gamma: tuple[float, ...], **_: Any
    ) -> list[Pruning]:
        """What lies between two thresholds of each model."""
        return by_rank(
            inputs,
            [_between(inputs.elements, *both) for both in zip(density, gamma, strict=True)],
        )


class BreadcrumbsTies(Breadcrumbs):
    """Model Breadcrumbs with the elected signs of TIES.

    What is kept of each difference from the base is as in `breadcrumbs`; signs are elected, and
    models that agree are merged, as in `ties`. No paper's: the combination is mergekit's.
    """

    operator: ClassVar[str] = "breadcrumbs_ties"
    example: ClassVar[str] = "{breadcrumbs_ties: {base: base, models: [a, b], density: 0.9}}"
    elected: ClassVar[bool] = True


def _between(elements: int, density: float, gamma: float) -> Outlying | None:
    """How many of the largest are left out, and how many below them are kept; None for all."""
    if density >= 1:
        return None
    if density <= 0:
        return 0, 0
    wanted = max(1, int(density * elements))
    return min(int(gamma * elements), elements - wanted), wanted
