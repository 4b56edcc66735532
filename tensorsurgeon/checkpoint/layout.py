"""Which tensor goes to which shard and to which byte of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from tensorsurgeon.checkpoint.folder import SINGLE_NAME
from tensorsurgeon.checkpoint.header import encode_header
from tensorsurgeon.errors import PlanError
from tensorsurgeon.specs import PAGE, TensorSpec, size_text


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of the result.

    Attributes:
        name: its file name.
        header: its first bytes, length prefix included.
        specs: its tensors, in the order of their bytes.
        offsets: where each of them begins, in bytes from the start of the file.
    """

    name: str
    header: bytes
    specs: tuple[TensorSpec, ...]
    offsets: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return len(self.header) + sum(spec.nbytes for spec in self.specs)


def lay_out(specs: Sequence[TensorSpec], max_shard_size: int) -> tuple[Shard, ...]:
    """Fill shards in order, none with more than `max_shard_size` bytes of tensors.

    Raises:
        PlanError: one tensor alone is larger than a shard may be.
    """
    groups: list[list[TensorSpec]] = [[]]
    filled = 0
    for spec in specs:
        if spec.nbytes > max_shard_size:
            raise PlanError(
                f"tensor '{spec.name}' of {size_text(spec.nbytes)} does not fit a shard of "
                f"{size_text(max_shard_size)}",
                fix="raise output: max_shard_size",
            )
        if groups[-1] and filled + spec.nbytes > max_shard_size:
            groups.append([])
            filled = 0
        groups[-1].append(spec)
        filled += spec.nbytes
    total = len(groups)
    return tuple(
        _shard(
            SINGLE_NAME if total == 1 else f"model-{index:05d}-of-{total:05d}.safetensors", group
        )
        for index, group in enumerate(groups, start=1)
    )


def _shard(name: str, group: list[TensorSpec]) -> Shard:
    # Wide dtypes first, as safetensors does itself: then every tensor is aligned to its own size.
    # Of each dtype those of whole pages first: then all of these begin on a page.
    specs = tuple(sorted(group, key=lambda spec: (-spec.dtype.bits, spec.nbytes % PAGE != 0)))
    header = encode_header(specs)
    ends = accumulate((spec.nbytes for spec in specs), initial=len(header))
    return Shard(name=name, header=header, specs=specs, offsets=tuple(ends)[:-1])
