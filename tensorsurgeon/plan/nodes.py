"""What a tensor of the result is made of: a tree of stored tensors, zeros and sums."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tensorsurgeon.operators import GeometricOperator
from tensorsurgeon.operators.families import Parameters
from tensorsurgeon.specs import DType, StoredTensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A tensor of a source, as it is."""

    tensor: StoredTensor
    source: str = field(compare=False)

    @property
    def dtype(self) -> DType:
        """Its dtype in the file."""
        return self.tensor.spec.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.tensor.spec.shape

    def __str__(self) -> str:
        return f"{self.source}:{self.tensor.spec.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Zeros:
    """All zero, in the shape and dtype of the tensor whose place it takes."""

    dtype: DType
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return "zeros"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sum:
    """The sum of weight times input; the weights are known before anything is read."""

    operator: str
    inputs: tuple["Node", ...]
    weights: tuple[float, ...]

    @property
    def dtype(self) -> DType:
        """The first input's."""
        return self.inputs[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """That of every input."""
        return self.inputs[0].shape

    def __str__(self) -> str:
        terms = zip(self.weights, self.inputs, strict=True)
        return " + ".join(f"{weight:.6g} * {_bracketed(term)}" for weight, term in terms)


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometric:
    """A sum whose weights follow from a Gram matrix.

    That is the inputs', or where the operator has an origin, which is the first input, that of the
    others' differences from it.
    """

    operator: GeometricOperator
    parameters: Parameters
    inputs: tuple["Node", ...]

    @property
    def dtype(self) -> DType:
        """The first input's."""
        return self.inputs[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """That of every input."""
        return self.inputs[0].shape

    def __str__(self) -> str:
        inside = ", ".join(map(str, self.inputs))
        values = "".join(f", {name}={value}" for name, value in self.parameters)
        return f"{self.operator.operator}({inside}{values})"


Node = Stored | Zeros | Sum | Geometric


def stored_in(node: Node) -> Iterator[Stored]:
    """Every stored tensor a node reads, in order, once for each time it stands in the tree."""
    if isinstance(node, Stored):
        yield node
    elif not isinstance(node, Zeros):
        for inner in node.inputs:
            yield from stored_in(inner)


def read_twice_in(node: Node) -> Iterator[StoredTensor]:
    """The stored tensors that a node's passes read more than once."""
    if isinstance(node, Geometric):
        yield from (stored.tensor for stored in stored_in(node))
    elif isinstance(node, Sum):
        for inner in node.inputs:
            yield from read_twice_in(inner)
        stored = [s.tensor for s in stored_in(node)]
        yield from (tensor for tensor in stored if stored.count(tensor) > 1)


def origin_of(node: Node) -> dict[str, Any]:
    """A node as the manifest tells it."""
    if isinstance(node, Stored):
        return {"source": node.source, "tensor": node.tensor.spec.name}
    if isinstance(node, Zeros):
        return {"zeros": True}
    inputs = [origin_of(inner) for inner in node.inputs]
    if isinstance(node, Sum):
        return {"operator": node.operator, "weights": list(node.weights), "inputs": inputs}
    return {
        "operator": node.operator.operator,
        "parameters": dict(node.parameters),
        "inputs": inputs,
    }


def bytes_read(node: Node) -> int:
    """Bytes read to make a node once, all its passes counted."""
    if isinstance(node, Stored):
        return node.tensor.spec.nbytes
    if isinstance(node, Zeros):
        return 0
    passes = 2 if isinstance(node, Geometric) else 1
    return passes * sum(map(_bytes_of_pass, node.inputs)) + sum(map(_bytes_to_prepare, node.inputs))


def _bytes_of_pass(node: Node) -> int:
    return sum(stored.tensor.spec.nbytes for stored in stored_in(node))


def _bytes_to_prepare(node: Node) -> int:
    return bytes_read(node) - _bytes_of_pass(node)


def _bracketed(node: Node) -> str:
    return f"({node})" if isinstance(node, Sum) else str(node)
