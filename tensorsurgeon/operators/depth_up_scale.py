"""Depth up-scaling, the paper's name for one particular stack."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field, StrictInt

from tensorsurgeon.errors import RecipeError
from tensorsurgeon.operators.families import ChosenLayer, LayerOperator
from tensorsurgeon.recipe import Expression


class DepthUpScale(LayerOperator):
    """Two copies of a model, one upon the other, without the layers around the seam.

    SOLAR 10.7B (Kim et al. 2023, arXiv:2312.15166, section 2): of n layers, the last m of the
    first copy and the first m of the second are removed, which leaves 2 (n - m). The paper has
    n = 32, m = 8 and so 48 layers.
    """

    operator: ClassVar[str] = "depth_up_scale"
    example: ClassVar[str] = "{depth_up_scale: {model: a, remove: 8}}"

    model: Expression = Field(description="the model to grow")
    remove: StrictInt = Field(description="m, the layers removed from each copy at the seam", ge=0)

    def layers(self, depths: Sequence[int]) -> tuple[ChosenLayer, ...]:
        """Layers [0, n - m), then [m, n)."""
        (depth,) = depths
        if self.remove >= depth:
            raise RecipeError(
                f"'depth_up_scale': removing {self.remove} of {depth} layers leaves none",
                fix=f"remove at most {depth - 1}",
            )
        chosen = (*range(depth - self.remove), *range(self.remove, depth))
        return tuple(ChosenLayer(0, layer) for layer in chosen)
