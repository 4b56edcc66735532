"""How much memory a run takes, known before it starts and kept while it runs.

Memory is spans times inputs times threads, whatever the tensors' sizes, upon what the
interpreter and the libraries take.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tensorsurgeon.errors import PlanError
from tensorsurgeon.plan.nodes import Geometric, Node, Stored, Zeros
from tensorsurgeon.specs import SPAN, DType, size_text

COPYING_BASE = 50_000_000
"""Bytes resident where nothing is computed: the interpreter and this program."""

COMPUTING_BASE = 66_000_000
"""Bytes resident where numpy is loaded."""

STAGING_BYTES = (4 << 20) + 4096
"""Bytes of a thread's buffer in front of the output."""

_PER_TENSOR = 2_500
"""Bytes of plan for each tensor of the result."""

_PER_THREAD = 1_000_000
"""Bytes a thread takes of its own: stack, allocator."""


def memory_needed(jobs: Iterable[tuple[Node, DType]], threads: int) -> int:
    """Peak resident bytes of a run.

    Args:
        jobs: what each tensor of the result is made of, and the dtype it is written in.
        threads: how many are worked on at a time.
    """
    listed = list(jobs)
    needs = scratch_needs(listed)
    base = COMPUTING_BASE if needs else COPYING_BASE
    scratch = needs.nbytes if needs else 0
    return base + _PER_TENSOR * len(listed) + threads * (STAGING_BYTES + scratch + _PER_THREAD)


def threads_within(jobs: Iterable[tuple[Node, DType]], threads: int, budget: int) -> int:
    """The most threads, up to `threads`, that stay within a memory budget in bytes.

    Raises:
        PlanError: not even one does.
    """
    listed = list(jobs)
    for count in range(threads, 0, -1):
        if memory_needed(listed, count) <= budget:
            return count
    least = memory_needed(listed, 1)
    raise PlanError(
        f"a budget of {size_text(budget)} is too small: one thread needs {size_text(least)}",
        fix=f"--max-memory {-(-least // 1_000_000)}MB or more",
    )


def copied(node: Node, dtype: DType) -> bool:
    """Whether a tensor is written without arithmetic."""
    return isinstance(node, Stored | Zeros) and node.dtype is dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class ScratchNeeds:
    """The span buffers one thread needs, whatever the tensors' sizes.

    Attributes:
        values: buffers of values at once.
        doubles: buffers of float64 at once, for dot products.
        wide: whether some tensor is computed in float64.
    """

    values: int
    doubles: int
    wide: bool

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, those for stored bytes and for rounding included."""
        return SPAN * (8 + 4 + self.values * (8 if self.wide else 4) + self.doubles * 8)


def scratch_needs(jobs: Iterable[tuple[Node, DType]]) -> ScratchNeeds | None:
    """What a thread needs to make any of these tensors; None where nothing is computed."""
    computed = [(node, dtype) for node, dtype in jobs if not copied(node, dtype)]
    if not computed:
        return None
    return ScratchNeeds(
        # One more, for the inputs of dot products while no result is being made yet.
        values=max(values_needed(node) for node, _ in computed) + 1,
        doubles=max(doubles_needed(node) for node, _ in computed),
        wide=any(dtype.wide for _, dtype in computed),
    )


def values_needed(node: Node) -> int:
    """Span buffers of values in use at once while a node is made, its own result's included."""
    if isinstance(node, Stored | Zeros):
        return 1
    first, *others = map(values_needed, node.inputs)
    return max([first, *(1 + other for other in others)])


def doubles_needed(node: Node) -> int:
    """Span buffers of float64 in use at once for dot products: the inputs' and one product's."""
    if isinstance(node, Stored | Zeros):
        return 0
    own = len(node.inputs) + 1 if isinstance(node, Geometric) else 0
    return max([own, *map(doubles_needed, node.inputs)])
