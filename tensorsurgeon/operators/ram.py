"""Task vectors that are averaged where they overlap, and kept where they do not."""

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from tensorsurgeon.operators.elementwise import (
    Elementwise,
    SizeSchedule,
    by_task_vectors,
    task_vectors,
)
from tensorsurgeon.operators.streaming import Inputs, Read, blocks
from tensorsurgeon.recipe import Schedule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tensorsurgeon.kernels import Values


class _Ram(Elementwise):
    epsilon: SizeSchedule = Field(
        default=Schedule.constant(1e-5),
        description="a difference from the base up to this is no change",
    )


class Ram(_Ram):
    """RAM: what several models changed is averaged, what one alone changed is kept.

    Reinforced Agent Merging (Yuan et al. 2026, arXiv:2601.13572). A model changed an element where
    it differs from the base by more than epsilon. What several models changed is the mean of their
    differences; what one alone changed is its difference.
    """

    operator: ClassVar[str] = "ram"
    example: ClassVar[str] = "{ram: {base: base, models: [a, b]}}"

    def begin(self, inputs: Inputs, epsilon: float) -> Read:
        """The mean of what was changed."""
        alike = [1.0] * (inputs.count - 1)
        return by_task_vectors(inputs, lambda vectors: _merged(vectors, epsilon, alike))


class RamplusTl(_Ram):
    """RAM+: as RAM, with what one model alone changed made larger, tensor by tensor.

    A model's own changes are multiplied by 1 + r * min(alpha, how many elements others changed too
    / how many it alone changed), to make up for how far the mean thins out the others (Yuan et al.
    2026, arXiv:2601.13572). The paper counts over the whole model, this over each tensor.
    """

    operator: ClassVar[str] = "ramplus_tl"
    example: ClassVar[str] = "{ramplus_tl: {base: base, models: [a, b], r: 0.2}}"

    r: SizeSchedule = Field(
        default=Schedule.constant(0.1),
        description="how strongly what is changed alone grows with the overlap",
    )
    alpha: SizeSchedule = Field(
        default=Schedule.constant(0.2),
        description="overlap, others' by own changes, above which it grows no more",
    )

    def times_read(self, r: float, alpha: float, **_: Any) -> int:
        """To count, and to merge."""
        return 2 if r and alpha else 1

    def begin(self, inputs: Inputs, epsilon: float, r: float, alpha: float) -> Read:
        """Count what is shared, then put together."""
        factors = [1.0] * (inputs.count - 1)
        if r and alpha:
            factors = [
                1.0 + r * min(alpha, shared / max(alone, 1))
                for shared, alone in _counted(inputs, epsilon)
            ]
        return by_task_vectors(inputs, lambda vectors: _merged(vectors, epsilon, factors))


def _counted(inputs: Inputs, epsilon: float) -> list[tuple[int, int]]:
    """How many elements each model changed that others did too, and how many it alone: one pass."""
    import numpy as np

    counts = np.zeros((inputs.count - 1, 2), np.int64)
    for block in blocks(inputs):
        changed, changes = _changed(task_vectors(block), epsilon)
        single = changes == 1
        for count, own in zip(counts, changed, strict=True):
            alone = np.count_nonzero(own & single)
            count += (np.count_nonzero(own) - alone, alone)
    return [(int(shared), int(alone)) for shared, alone in counts]


def _merged(vectors: list["Values"], epsilon: float, factors: list[float]) -> "Values":
    """The mean of the vectors that changed an element, or the only one times its factor."""
    import numpy as np

    changed, changes = _changed(vectors, epsilon)
    for own, vector in zip(changed, vectors, strict=True):
        np.multiply(vector, own, out=vector)
    total = sum(vectors[1:], start=vectors[0])
    if all(factor == 1.0 for factor in factors):
        return total / np.maximum(changes, 1)
    only = sum(
        (factor * vector for factor, vector in zip(factors, vectors, strict=True)),
        start=np.zeros_like(total),
    )
    return np.where(changes == 1, only, total / np.maximum(changes, 1))


def _changed(
    vectors: list["Values"], epsilon: float
) -> tuple[list["NDArray[np.bool_]"], "NDArray[np.int64]"]:
    """Which elements each model changed, and how many models changed each."""
    import numpy as np

    changed = [np.abs(vector) > epsilon for vector in vectors]
    return changed, np.add.reduce(changed, axis=0, dtype=np.int64)
