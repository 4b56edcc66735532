"""Values of a node, span by span: `prepare` runs the passes it needs first, `read` gives a span.

The tree of a plan's node is walked at every span. A geometric node becomes a plain sum once its
Gram matrix is known, and a streamed one a function of spans, so that reading knows of stored
tensors, zeros, sums and functions alone.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, Union

import numpy as np

from tensorsurgeon.checkpoint import Reader
from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.execute.inputs import NodeInputs, as_values
from tensorsurgeon.kernels import Raw, Scratch, Values, dot, scale
from tensorsurgeon.kernels.task_vectors import Stored as Span
from tensorsurgeon.operators import Gram
from tensorsurgeon.operators.streaming import Inputs, Read
from tensorsurgeon.plan import Node, Stored, Streamed, Sum, Zeros, stored_in
from tensorsurgeon.specs import SPAN, TensorSpec

T = TypeVar("T")

Surveys = dict[tuple[int, str], Any]
"""What an operator found of a tensor before it made any, by `survey_key`."""


def survey_key(node: Streamed) -> tuple[int, str]:
    """Which operator's tensor a node is."""
    return id(node.operator), node.name


@dataclass(frozen=True, slots=True)
class Terms:
    """A sum whose inputs can be read and whose weights are known."""

    inputs: tuple["Ready", ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Function:
    """Spans that are had by calling a function, in order."""

    read: Read
    inputs: NodeInputs


Ready = Union[Stored, Zeros, Terms, Function]  # noqa: UP007  (one of them stands in quotes)
"""A node that can be read."""


def spans(elements: int) -> Iterator[tuple[int, int]]:
    """The spans [start, stop) of a tensor of so many elements."""
    return ((start, min(start + SPAN, elements)) for start in range(0, elements, SPAN))


class Evaluator:
    """Reads nodes for one thread.

    Args:
        reader: has the sources' files open.
        scratch: this thread's buffers.
        step: told the number of bytes after each read; may raise to stop the run.
        note: told what an operator has to say of its coefficients.
        surveys: what operators have found of their tensors, see `survey`.
    """

    def __init__(
        self,
        reader: Reader,
        scratch: Scratch,
        step: Callable[[int], None],
        note: Callable[[str], None],
        surveys: Surveys,
    ) -> None:
        self._reader = reader
        self._scratch = scratch
        self._step = step
        self._note = note
        self._surveys = surveys

    def prepare(self, node: Node, spec: TensorSpec) -> Ready:
        """Run every pass that must come before a node can be read.

        Args:
            node: what to make.
            spec: what is made of it.

        Returns:
            The same node with every coefficient known.

        Raises:
            CheckpointError: inputs whose dot products are not finite, so that nothing follows.
        """
        if isinstance(node, Stored | Zeros):
            return node
        inputs = tuple(self.prepare(inner, spec) for inner in node.inputs)
        if isinstance(node, Sum):
            return Terms(inputs, node.weights)
        if isinstance(node, Streamed):
            seen = self._seen(node, inputs)
            return Function(node.operator.begin(seen, **dict(node.parameters)), seen)
        based = node.operator.origin is not None
        gram = self._gram(inputs, spec.elements, based=based)
        if not all(math.isfinite(product) for row in gram for product in row):
            counted = self.nonfinite_in(node)
            raise CheckpointError(
                f"{counted or 'values are too large to be squared'}, so that "
                f"'{node.operator.operator}' has nothing to go by",
                where=f"tensor '{spec.name}'",
                fix="give the tensor to one model by a rule, if that one is sound",
            )
        found = node.operator.coefficients(gram, **dict(node.parameters))
        if found.note:
            self._note(found.note)
        # What has no share is not read again.
        shares = zip(inputs, found.of_inputs(based=based), strict=True)
        terms = [(node, share) for node, share in shares if share] or [(inputs[0], 0.0)]
        return Terms(tuple(node for node, _ in terms), tuple(share for _, share in terms))

    def look_at(self, node: Streamed, spec: TensorSpec, of: Callable[[Inputs], T]) -> T:
        """What a function makes of a node's inputs, when all passes before it were run."""
        found = of(self._seen(node, tuple(self.prepare(inner, spec) for inner in node.inputs)))
        self._scratch.give_back_all()
        return found

    def _seen(self, node: Streamed, inputs: tuple[Ready, ...]) -> NodeInputs:
        surveyed = self._surveys.get(survey_key(node))
        return NodeInputs(node, inputs, self._span, self._scratch, self._note, surveyed)

    def read(
        self, node: Ready, start: int, out: Values, known: tuple[Stored, Span] | None = None
    ) -> None:
        """Fill `out` with the node's values from element `start` on.

        Args:
            node: as `prepare` returned it.
            start: first element.
            out: (n,) float64.
            known: an input of a sum that was read already, and what was read.
        """
        if isinstance(node, Stored):
            self._scale_stored(node, 1.0, start, out)
        elif isinstance(node, Zeros):
            out.fill(0)
        elif isinstance(node, Function):
            node.read(start, out)
        else:
            for position, (inner, weight) in enumerate(zip(node.inputs, node.weights, strict=True)):
                add = position > 0
                if known is not None and inner is known[0]:
                    span = known[1]
                    scale(span.raw, span.dtype, weight, out, add=add, scratch=self._scratch)
                else:
                    self._scale(inner, weight, start, out, add=add)

    def nonfinite_in(self, node: Node) -> str:
        """Which stored tensors of a node have NaNs or infinities, and how many; empty for none."""
        told = []
        for stored in dict.fromkeys(stored_in(node)):
            nans = infinities = 0
            buffer = self._scratch.take()
            for start, stop in spans(math.prod(stored.shape)):
                values = buffer[: stop - start]
                self.read(stored, start, values)
                nans += int(np.count_nonzero(np.isnan(values)))
                infinities += int(np.count_nonzero(np.isinf(values)))
            self._scratch.give_back()
            kinds = ((nans, "NaN"), (infinities, "infinite value"))
            if counted := " and ".join(f"{n} {kind}{'s' * (n > 1)}" for n, kind in kinds if n):
                told.append(f"{stored} has {counted}")
        return "; ".join(told)

    def _scale(self, node: Ready, weight: float, start: int, out: Values, *, add: bool) -> None:
        """Set `out` to weight times the node's values, or add that to it."""
        if isinstance(node, Stored):
            self._scale_stored(node, weight, start, out, add=add)
            return
        values = self._scratch.take()[: len(out)] if add else out
        self.read(node, start, values)
        np.multiply(values, weight, out=values)
        if add:
            np.add(out, values, out=out)
            self._scratch.give_back()

    def _scale_stored(
        self, node: Stored, weight: float, start: int, out: Values, *, add: bool = False
    ) -> None:
        span = self.stored(node, start, len(out), self._scratch.raw)
        scale(span.raw, span.dtype, weight, out, add=add, scratch=self._scratch)

    def stored(self, node: Stored, start: int, count: int, buffer: Raw) -> Span:
        """A span as it is in the file, in a buffer that is large enough."""
        size = node.dtype.bits // 8
        raw = buffer[: count * size]
        self._reader.read_into(node.tensor, start * size, raw.data)
        self._step(len(raw))
        return Span(raw, node.dtype)

    def _span(self, node: Ready, start: int, buffer: Values) -> Span:
        """A span as it is in the file, or where there is none as values, in a buffer."""
        if isinstance(node, Stored):
            return self.stored(node, start, len(buffer), buffer.view(np.uint8))
        for low, high in spans(len(buffer)):  # which a row may be longer than
            self.read(node, start + low, buffer[low:high])
        return as_values(buffer)

    def _gram(self, inputs: tuple[Ready, ...], elements: int, *, based: bool) -> Gram:
        """(n, n) dot products of all inputs, each span's in float64, summed span after span.

        Where the first is a base, they are those of the others' differences from it.
        """
        count = len(inputs) - based
        gram = [[0.0] * count for _ in range(count)]
        buffers = [self._scratch.take() for _ in inputs]
        for start, stop in spans(elements):
            vectors = [buffer[: stop - start] for buffer in buffers]
            for node, vector in zip(inputs, vectors, strict=True):
                self.read(node, start, vector)
            if based:
                origin, *vectors = vectors
                for vector in vectors:
                    np.subtract(vector, origin, out=vector)
            for i, left in enumerate(vectors):
                for j, right in enumerate(vectors[i:], start=i):
                    gram[i][j] += dot(left, right, scratch=self._scratch)
        self._scratch.give_back(len(inputs))
        for i in range(count):
            for j in range(i):
                gram[i][j] = gram[j][i]
        return gram
