"""A filter of mergekit's, which is a part of a tensor's name, as globs on whole names.

mergekit looks for it in names as they are in a source, or in the output. Our rules see a slice as a
model of its own whose layers count from 0, so that a filter which names a layer is counted anew.
"""

from dataclasses import dataclass

_CONTAINERS = ("layers", "layer", "h", "blocks", "block")
"""What stands before a layer's index in names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """The layers that a merge is of, as filters see them.

    Attributes:
        start: index of the first one.
        count: how many they are; None for whole models.
    """

    start: int = 0
    count: int | None = None


class UnclearFilter(Exception):  # noqa: N818 - no error to be shown: it is put in words
    """It cannot be told whether a filter names a layer."""


def globs_of(filter_: str, frame: Frame) -> tuple[str, ...]:
    """Globs for the tensors whose name has the filter in it.

    Returns:
        None at all where it names a layer that is not among these.

    Raises:
        UnclearFilter: it has a number that may be a layer's index or not.
    """
    parts = filter_.split(".")
    numbers = [at for at, part in enumerate(parts) if part.isdecimal()]
    if frame.count is None or not numbers:
        return (f"*{filter_}*",)
    at = next((at for at in numbers if at and parts[at - 1] in _CONTAINERS), None)
    if at is None:
        if frame.start == 0 or all(at and parts[at - 1] == "experts" for at in numbers):
            return (f"*{filter_}*",)
        raise UnclearFilter
    before, after = ".".join(parts[:at]), ".".join(parts[at + 1 :])
    is_cut = at == len(parts) - 1  # as `layers.1`, which layer 10 has in its name as well
    layers = range(frame.start, frame.start + frame.count)
    named = [i for i in layers if str(i) == parts[at] or (is_cut and str(i).startswith(parts[at]))]
    return tuple(f"*{before}.{layer - frame.start}.{after}*" for layer in named)
