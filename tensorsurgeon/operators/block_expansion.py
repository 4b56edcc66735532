"""Block expansion: new layers that change nothing until they are trained."""

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field, StrictInt

from tensorsurgeon.errors import RecipeError
from tensorsurgeon.operators.families import ChosenLayer, LayerOperator
from tensorsurgeon.recipe import Expression


class BlockExpansion(LayerOperator):
    """New layers that change nothing until trained: every k-th, copied and zeroed.

    LLaMA-Pro (Wu et al. 2024, arXiv:2401.02415, section 3.2): the matrices that write to the
    residual stream, o_proj and down_proj or the family's equivalents, and their biases are zero
    in the copy, so the logits stay equal bit for bit. Departs from the paper where k does not
    divide the depth: the layers left over are kept without a copy after them.
    """

    operator: ClassVar[str] = "block_expansion"
    example: ClassVar[str] = "{block_expansion: {model: a, every: 4}}"

    model: Expression = Field(description="the model to grow")
    every: StrictInt = Field(description="k: a new layer comes after every k-th", ge=1)
    zero: tuple[str, ...] = Field(
        default=(),
        description="globs on tensor names inside a layer, as `mlp.down_proj.*`: what is zero in "
        "a new layer; only needed for families that are not known",
    )

    def layers(self, depths: Sequence[int]) -> tuple[ChosenLayer, ...]:
        """Each layer, and after every k-th its zeroed copy."""
        (depth,) = depths
        if self.every > depth:
            raise RecipeError(
                f"'block_expansion': every {self.every} layers of {depth} adds none",
                fix=f"every: 1 to {depth}",
            )
        chosen: list[ChosenLayer] = []
        for layer in range(depth):
            chosen.append(ChosenLayer(0, layer))
            if (layer + 1) % self.every == 0:
                chosen.append(ChosenLayer(0, layer, zeroed=True))
        return tuple(chosen)

    def zero_patterns(self) -> tuple[str, ...]:
        """The recipe's own globs, where it has any."""
        return self.zero
