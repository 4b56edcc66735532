"""Layers of several kinds: a layer may only stand where the loader expects one of its kind.

Where some layers have tensors that others lack, the loader knows from the config or from the
index which is which. What the config says moves along with the layers; what only the index says
does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensorsurgeon.errors import ArchitectureError

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of tensors by name."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One layer as the loader sees it.

    Attributes:
        index: its index in the model it comes from.
        setting: all that the config says of this layer alone.
        shapes: its tensors, by their names inside the layer.
    """

    index: int
    setting: str
    shapes: Shapes


def check_kinds(source: Sequence[Slot], new: Sequence[Slot]) -> None:
    """Whether every layer of a new model is of the kind that its place asks for.

    The kind follows from the setting, but for the lowest layers of the source, as many as do not
    fit this: they are special by their index, as T5's first, which holds the position biases.

    Args:
        source: the layers of the model whose config is built on.
        new: the layers of the new model.

    Raises:
        ArchitectureError: a layer is of another kind; names a tensor that tells.
    """
    kinds: dict[str, Shapes] = {}
    special = 0
    for slot in reversed(source):
        if kinds.setdefault(slot.setting, slot.shapes) != slot.shapes:
            special = slot.index + 1
            break
    for index, slot in enumerate(new):
        expected = source[index].shapes if index < special else kinds.get(slot.setting, slot.shapes)
        if slot.shapes != expected:
            raise ArchitectureError(
                f"layer {slot.index} cannot become layer {index}: {_difference(slot, expected)}, "
                "and nothing in config.json says which layers are so",
                fix="let layers of this kind keep their places",
            )


def _difference(slot: Slot, expected: Shapes) -> str:
    for name, shape in slot.shapes.items():
        if name not in expected:
            return f"it has a tensor '{name}', which a layer there has not"
        if expected[name] != shape:
            return f"its '{name}' is {list(shape)}, there it is {list(expected[name])}"
    lacking = next(name for name in expected if name not in slot.shapes)
    return f"it lacks a tensor '{lacking}', which a layer there has"
