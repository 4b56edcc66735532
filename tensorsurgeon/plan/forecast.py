"""How much memory a run takes, known before it starts and kept while it runs.

Memory is spans times inputs times threads, whatever the tensors' sizes, upon what the
interpreter and the libraries take.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tensorsurgeon.errors import PlanError
from tensorsurgeon.plan.nodes import Geometric, Node, Stored, Streamed, Zeros, base_of
from tensorsurgeon.specs import PAGE, SPAN, STAGING, DType, size_text

COPYING_BASE = 50_000_000
"""Bytes resident where nothing is computed: the interpreter and this program."""

COMPUTING_BASE = 66_000_000
"""Bytes resident where numpy is loaded."""

_PER_TENSOR = 1_500
"""Bytes of plan for each tensor of the result."""

_PER_NODE = 1_400
"""Bytes of plan for each tensor of a source that one is made of, and for what is made of them."""

_PER_SURVEYED = 2_000
"""Bytes of what is found of a tensor before any is made."""

_PER_THREAD = 1_000_000
"""Bytes a thread takes of its own: stack, allocator."""


PARSING = 400
"""Bytes resident for each token, and each merge, of a tokenizer, until there is a plan."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """What else takes memory.

    Attributes:
        meanwhile: resident bytes all the time.
        afterwards: resident bytes when the threads' buffers are free again, or not there yet.
    """

    meanwhile: int = 0
    afterwards: int = 0


_NOTHING = Beside()


def memory_needed(
    jobs: Iterable[tuple[Node, DType]], threads: int, beside: Beside = _NOTHING
) -> int:
    """Peak resident bytes of a run.

    Args:
        jobs: what each tensor of the result is made of, and the dtype it is written in.
        threads: how many are worked on at a time.
        beside: what else takes memory, as the Hub's client.
    """
    listed = list(jobs)
    buffers = buffers_needed(listed)
    base = COMPUTING_BASE if buffers else COPYING_BASE
    # Beside the values: a span as it is stored, one of words on the way to it, one of random ones.
    scratch = SPAN * (8 + 4 + 4 + 8 * buffers) if buffers else 0
    held = max((_bytes_held(node) for node, dtype in listed if not copied(node, dtype)), default=0)
    own = STAGING + PAGE + scratch + held + _PER_THREAD
    plan = _PER_TENSOR * len(listed) + sum(_bytes_of_plan(node) for node, _ in listed)
    always = base + beside.meanwhile + plan
    return always + max(threads * own, beside.afterwards)


def threads_within(
    jobs: Iterable[tuple[Node, DType]], threads: int, budget: int, beside: Beside = _NOTHING
) -> int:
    """The most threads, up to `threads`, that stay within a memory budget in bytes.

    Raises:
        PlanError: not even one does.
    """
    listed = list(jobs)
    for count in range(threads, 0, -1):
        if memory_needed(listed, count, beside) <= budget:
            return count
    least = memory_needed(listed, 1, beside)
    raise PlanError(
        f"a budget of {size_text(budget)} is too small: one thread needs {size_text(least)}",
        fix=f"--max-memory {-(-least // 1_000_000)}MB or more",
    )


def copied(node: Node, dtype: DType) -> bool:
    """Whether a tensor is written without arithmetic."""
    return isinstance(node, Stored | Zeros) and node.dtype is dtype


def buffers_needed(jobs: Iterable[tuple[Node, DType]]) -> int:
    """Span buffers one thread needs to make any of these tensors; 0 where nothing is computed."""
    computed = [node for node, dtype in jobs if not copied(node, dtype)]
    return max((_buffers(node) for node in computed), default=0)


def _buffers(node: Node) -> int:
    base = isinstance(base_of(node), Stored)  # kept, to be compared with what is written
    return base + _held(node) + max(1 + _terms(node), _to_prepare(node))


def _held(node: Node) -> int:
    """Buffers that streamed operators keep their inputs in until the tensor is made."""
    if isinstance(node, Stored | Zeros):
        return 0
    own = len(node.inputs) if isinstance(node, Streamed) else 0
    return own + sum(map(_held, node.inputs))


def _terms(node: Node) -> int:
    """Buffers in use while a node is read, its own result's and those held aside."""
    if isinstance(node, Stored | Zeros):
        return 0
    first, *others = map(_terms, node.inputs)
    if isinstance(node, Streamed):  # its inputs are read into buffers that it holds
        return max([first, *others])
    return max([first, *(1 + other for other in others)])


def _to_prepare(node: Node) -> int:
    """Buffers in use before a node is read, those held aside.

    For dot products they are the inputs', one product's, and their terms'.
    """
    if isinstance(node, Stored | Zeros):
        return 0
    own = 0
    if isinstance(node, Geometric):
        own = len(node.inputs) + 1 + max(map(_terms, node.inputs))
    if isinstance(node, Streamed):
        own = max(map(_terms, node.inputs))
    return max([own, *map(_to_prepare, node.inputs)])


def _bytes_of_plan(node: Node) -> int:
    if isinstance(node, Stored | Zeros):
        return _PER_NODE
    surveyed = isinstance(node, Streamed) and node.operator.surveys()
    return _PER_NODE + _PER_SURVEYED * surveyed + sum(map(_bytes_of_plan, node.inputs))


def _bytes_held(node: Node) -> int:
    """Bytes that streamed operators hold beside their inputs' buffers."""
    if isinstance(node, Stored | Zeros):
        return 0
    own = 0
    if isinstance(node, Streamed):
        own = node.operator.bytes_held(node.shape, len(node.inputs))
    return own + sum(map(_bytes_held, node.inputs))
