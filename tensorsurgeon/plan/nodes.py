"""What a tensor of the result is made of: a tree of stored tensors, zeros and sums."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tensorsurgeon.operators import GeometricOperator, StreamedOperator
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
    """The sum of weight times input; the weights are known before anything is read.

    Attributes:
        based: whether the first input is the base that the others are tuned from.
        written: the dtype it is to be of, where that is not the first input's.
    """

    operator: str
    inputs: tuple["Node", ...]
    weights: tuple[float, ...]
    based: bool = False
    written: DType | None = None

    @property
    def dtype(self) -> DType:
        """The first input's, unless told otherwise."""
        return self.written or self.inputs[0].dtype

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
        return _called(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Streamed:
    """Whatever an operator makes of spans, after passes of its own.

    Where the operator has an origin, that is the first input.

    Attributes:
        name: of the tensor, where it is merged.
        seed: of what is random in it.
        made: its shape, where that is not the first input's.
    """

    operator: StreamedOperator
    parameters: Parameters
    inputs: tuple["Node", ...]
    name: str
    seed: int
    made: tuple[int, ...] | None = None

    @property
    def dtype(self) -> DType:
        """The first input's."""
        return self.inputs[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """That of every input, unless told otherwise."""
        return self.made or self.inputs[0].shape

    def __str__(self) -> str:
        return _called(self)


Node = Stored | Zeros | Sum | Geometric | Streamed


def stored_in(node: Node) -> Iterator[Stored]:
    """Every stored tensor a node reads, in order, once for each time it stands in the tree."""
    if isinstance(node, Stored):
        yield node
    elif not isinstance(node, Zeros):
        for inner in node.inputs:
            yield from stored_in(inner)


def read_twice_in(node: Node) -> Iterator[StoredTensor]:
    """The stored tensors that are read more than once to make a node."""
    if isinstance(node, Geometric) or (isinstance(node, Streamed) and passes_of(node) > 1):
        yield from (stored.tensor for stored in stored_in(node))
    elif isinstance(node, Sum | Streamed):
        for inner in node.inputs:
            yield from read_twice_in(inner)
        stored = [s.tensor for s in stored_in(node)]
        yield from (tensor for tensor in stored if stored.count(tensor) > 1)


def base_of(node: Node) -> Node | None:
    """What a node updates, where it has that among its inputs."""
    if isinstance(node, Stored | Zeros):
        return None
    based = node.based if isinstance(node, Sum) else node.operator.origin is not None
    return node.inputs[0] if based else None


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
        "parameters": {name.rstrip("_"): value for name, value in node.parameters},
        "inputs": inputs,
    }


def bytes_read(node: Node) -> int:
    """Bytes read to make a node once, all its passes counted."""
    return _bytes_to_prepare(node) + _bytes_of_pass(node)


def bytes_surveyed(node: Node) -> int:
    """Bytes of these that surveys read."""
    return _bytes_to_prepare(node) - _bytes_to_prepare(node, surveyed=True)


def passes_of(node: Node) -> int:
    """How often a node's inputs are read."""
    if isinstance(node, Streamed):
        return node.operator.times_read(**dict(node.parameters))
    return 2 if isinstance(node, Geometric) else 1


def _bytes_of_pass(node: Node) -> int:
    if isinstance(node, Stored):
        return node.tensor.spec.nbytes
    if isinstance(node, Zeros):
        return 0
    of_inputs = [_bytes_of_pass(inner) for inner in node.inputs]
    return node.operator.bytes_of_pass(of_inputs) if isinstance(node, Streamed) else sum(of_inputs)


def _bytes_to_prepare(node: Node, *, surveyed: bool = False) -> int:
    """Bytes read before the pass that makes a node, or those without what surveys read."""
    if isinstance(node, Stored | Zeros):
        return 0
    of_inputs = [_bytes_of_pass(inner) for inner in node.inputs]
    inner = sum(_bytes_to_prepare(one, surveyed=surveyed) for one in node.inputs)
    if not isinstance(node, Streamed):
        return (passes_of(node) - 1) * sum(of_inputs) + inner
    parameters = dict(node.parameters)
    own = node.operator.bytes_before(of_inputs, **parameters)
    looks = node.operator.times_surveyed(**parameters)
    if surveyed and looks:
        own -= own * looks // (passes_of(node) - 1)
    elif looks:  # every pass of a survey prepares the inputs anew
        inner += looks * sum(_bytes_to_prepare(one, surveyed=True) for one in node.inputs)
    return own + inner


def _called(node: Geometric | Streamed) -> str:
    inside = ", ".join(map(str, node.inputs))
    values = "".join(f", {name.rstrip('_')}={_shown(value)}" for name, value in node.parameters)
    return f"{node.operator.operator}({inside}{values})"


def _shown(value: float | tuple[float, ...]) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value).removesuffix(".0")


def _bracketed(node: Node) -> str:
    return f"({node})" if isinstance(node, Sum) else str(node)
