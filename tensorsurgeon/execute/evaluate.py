"""Values of a node, span by span: `prepare` runs the passes it needs first, `read` gives a span.

The tree of a plan's node is walked at every span. A geometric node becomes a plain sum once its
Gram matrix is known, so that reading knows of stored tensors, zeros and sums alone.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from tensorsurgeon.checkpoint import Reader
from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.kernels import Scratch, Values, dot, scale
from tensorsurgeon.operators import Gram
from tensorsurgeon.plan import Node, Stored, Sum, Zeros
from tensorsurgeon.specs import SPAN, TensorSpec


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
    """

    def __init__(
        self,
        reader: Reader,
        scratch: Scratch,
        step: Callable[[int], None],
        note: Callable[[str], None],
    ) -> None:
        self._reader = reader
        self._scratch = scratch
        self._step = step
        self._note = note

    def prepare(self, node: Node, spec: TensorSpec) -> Node:
        """Run every pass that must come before a node can be read.

        Args:
            node: what to make.
            spec: what is made of it.

        Returns:
            The same node with every coefficient known: stored tensors, zeros and sums.

        Raises:
            CheckpointError: inputs whose dot products are not finite, so that nothing follows.
        """
        if isinstance(node, Stored | Zeros):
            return node
        inputs = tuple(self.prepare(inner, spec) for inner in node.inputs)
        if isinstance(node, Sum):
            return Sum(operator=node.operator, inputs=inputs, weights=node.weights)
        based = node.operator.origin is not None
        gram = self._gram(inputs, spec.elements, based=based)
        if not all(math.isfinite(product) for row in gram for product in row):
            raise CheckpointError(
                "an input has a NaN, an infinity, or values too large to be squared, so that "
                f"'{node.operator.operator}' has nothing to go by",
                where=f"tensor '{spec.name}'",
                fix="give the tensor to one model by a rule, if that one is sound",
            )
        found = node.operator.coefficients(gram, **dict(node.parameters))
        if found.note:
            self._note(found.note)
        weights = found.of_inputs(based=based)
        return Sum(operator=node.operator.operator, inputs=inputs, weights=weights)

    def read(self, node: Node, start: int, out: Values) -> None:
        """Fill `out` with the node's values from element `start` on.

        Args:
            node: as `prepare` returned it.
            start: first element.
            out: (n,) float64.
        """
        if isinstance(node, Stored):
            self._scale_stored(node, 1.0, start, out)
        elif isinstance(node, Zeros):
            out.fill(0)
        elif isinstance(node, Sum):
            for position, (inner, weight) in enumerate(zip(node.inputs, node.weights, strict=True)):
                self._scale(inner, weight, start, out, add=position > 0)
        else:
            raise AssertionError("a geometric node is read only after it was prepared")

    def _scale(self, node: Node, weight: float, start: int, out: Values, *, add: bool) -> None:
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
        size = node.dtype.bits // 8
        raw = self._scratch.raw[: len(out) * size]
        self._reader.read_into(node.tensor, start * size, raw.data)
        scale(raw, node.dtype, weight, out, add=add, scratch=self._scratch)
        self._step(len(raw))

    def _gram(self, inputs: tuple[Node, ...], elements: int, *, based: bool) -> Gram:
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
