"""Methods that make a tensor span by span, after as many passes over its inputs as they need."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tensorsurgeon.operators.families import MergeOperator
from tensorsurgeon.specs import SPAN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tensorsurgeon.kernels import Values
    from tensorsurgeon.kernels.task_vectors import Stored

BLOCK = 1 << 14
"""Elements that arithmetic in numpy takes at a time: what lies in between stays in the cache."""


class Inputs(Protocol):
    """The tensors that one is made of, while a run goes on; with a base, that is the first."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor, and as a rule of each of them."""

    @property
    def elements(self) -> int:
        """As many as that has."""

    def stored(self, index: int, start: int, stop: int) -> "Stored":
        """A span of one, valid until the next of the same is asked for."""

    def held(self, index: int) -> "Stored":
        """The span of one that was asked for last."""

    def block(self, index: int, start: int, stop: int) -> "Values":
        """A part of that span, counted from its start, as new float64 values."""

    @property
    def surveyed(self) -> Any:
        """What the operator's survey found for this tensor; None where there was none."""

    def words(self, index: int, start: int, stop: int) -> "NDArray[np.uint32]":
        """A random word for each element of a span, valid until the next are asked for.

        They depend on seed, tensor, input and flat index, and on nothing else.
        """

    def note(self, text: str) -> None:
        """Tell the user of something that holds for this tensor."""


Read = Callable[[int, "Values"], None]
"""Fills a (n,) float64 buffer with the values from a flat index on; called in order from 0."""

T = TypeVar("T")


class EachTensor(Protocol):
    """Runs a function on the inputs of every tensor that an operator makes."""

    def __call__(self, of: Callable[[Inputs], T], fold: Callable[[int, T], None]) -> None:
        """Fold what comes of each, with the tensor's number, one at a time and in any order."""


OfBlock = Callable[[list["Values"]], "Values"]
"""Makes (n,) float64 values of as many of each input."""


class StreamedOperator(MergeOperator):
    """Any function of the inputs that can be had in passes over them."""

    @abstractmethod
    def begin(self, inputs: Inputs, *args: Any, **parameters: Any) -> Read:
        """Run all passes but the last, and give what runs that.

        Args:
            inputs: the tensors; those of `kept` alone.
            args: none.
            parameters: the scheduled ones at this tensor, of those of `kept` alone.
        """

    def times_read(self, *args: Any, **parameters: Any) -> int:  # noqa: ARG002
        """Most times that the inputs are read."""
        return 1

    def bytes_before(self, inputs: Sequence[int], *args: Any, **parameters: Any) -> int:
        """Bytes that are read of the inputs before the pass that makes the tensor.

        Args:
            inputs: the bytes of each.
            args: none.
            parameters: the scheduled ones at this tensor.
        """
        return (self.times_read(*args, **parameters) - 1) * sum(inputs)

    def bytes_of_pass(self, inputs: Sequence[int]) -> int:
        """Bytes that are read of them in that pass, given the bytes of each."""
        return sum(inputs)

    def check(self, *args: Any, **parameters: Any) -> None:
        """Look at parameters that must fit each other.

        Raises:
            RecipeError: they do not.
        """

    def surveys(self) -> bool:
        """Whether it has to see all tensors before it makes any."""
        return False

    def times_surveyed(self, *args: Any, **parameters: Any) -> int:  # noqa: ARG002
        """How many of the passes over the inputs are the survey's."""
        return 0

    def survey(self, elements: int, tensors: int, each: EachTensor) -> Sequence[Any]:
        """Look at all tensors, in as many passes as it takes.

        Args:
            elements: of all tensors.
            tensors: how many there are.
            each: makes a pass.

        Returns:
            What `begin` is given as `inputs.surveyed`, for each tensor.
        """
        raise NotImplementedError

    def kept(self, *args: Any, **parameters: Any) -> tuple[int, ...] | None:  # noqa: ARG002
        """Indices of the models, the base aside, that count at a tensor; None for all."""
        return None

    def bytes_held(self, shape: tuple[int, ...], count: int) -> int:  # noqa: ARG002
        """Bytes a thread holds beside a span buffer for each of `count` inputs and the result."""
        return 0


def blocks(inputs: Inputs) -> Iterator[list["Values"]]:
    """All inputs, decoded, a block at a time: one pass."""
    for start, stop in spans_of(inputs.elements):
        yield from _blocks_of(inputs, start, stop)


def by_block(inputs: Inputs, function: OfBlock) -> Read:
    """Reads by a function of blocks."""

    def read(start: int, out: "Values") -> None:
        done = 0
        for block in _blocks_of(inputs, start, start + len(out)):
            count = len(block[0])
            out[done : done + count] = function(block)
            done += count

    return read


def _blocks_of(inputs: Inputs, start: int, stop: int) -> Iterator[list["Values"]]:
    for index in range(inputs.count):
        inputs.stored(index, start, stop)
    for low, high in spans_of(stop - start, BLOCK):
        yield [inputs.block(index, low, high) for index in range(inputs.count)]


def by_rows(inputs: Inputs, fill: Callable[[int, int, "Values"], None]) -> Read:
    """Reads by a function that fills whole rows, from one flat index to another."""
    import numpy as np

    step = rows_at_a_time(inputs.shape)
    window = np.empty(min(step, inputs.elements))
    begin = end = 0

    def read(start: int, out: "Values") -> None:
        nonlocal begin, end
        done = 0
        while done < len(out):
            at = start + done
            if not begin <= at < end:
                begin = at - at % step
                end = min(begin + step, inputs.elements)
                fill(begin, end, window[: end - begin])
            count = min(end - at, len(out) - done)
            out[done : done + count] = window[at - begin : at - begin + count]
            done += count

    return read


def spans_of(elements: int, step: int = SPAN) -> Iterator[tuple[int, int]]:
    """The spans [start, stop) of a tensor of so many elements."""
    return ((start, min(start + step, elements)) for start in range(0, elements, step))


def columns_of(shape: tuple[int, ...]) -> int:
    """Elements of a row; a vector is one row."""
    return shape[-1] if shape else 1


def rows_at_a_time(shape: tuple[int, ...]) -> int:
    """Elements of as many whole rows as a span has room for, or of one."""
    columns = max(1, columns_of(shape))
    return max(1, SPAN // columns) * columns
