"""What a run will do: every tensor of the result, and what is read, written and kept for it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Literal

from tensorsurgeon.checkpoint import FileIdentity, Identity, RemoteFile, Repo
from tensorsurgeon.checkpoint.layout import Shard
from tensorsurgeon.operators import StreamedOperator
from tensorsurgeon.plan.forecast import copied
from tensorsurgeon.plan.nodes import (
    Node,
    Stored,
    Streamed,
    Zeros,
    bytes_read,
    read_twice_in,
    stored_in,
)
from tensorsurgeon.plan.sidecars import OwnFile, SidecarFile
from tensorsurgeon.specs import PAGE, DType, LayerOrigin, StoredTensor, TensorSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputTensor:
    """One tensor of the result.

    Attributes:
        spec: its name, dtype and shape as written.
        node: what it is made of.
        shard: the file it goes to.
        offset: where its bytes begin there.
    """

    spec: TensorSpec
    node: Node
    shard: str
    offset: int

    @property
    def is_copied(self) -> bool:
        """Whether it is written without arithmetic."""
        return copied(self.node, self.spec.dtype)

    @property
    def bytes_read(self) -> int:
        """Bytes read to make it, all passes counted."""
        return bytes_read(self.node)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything a run will do, before it does anything.

    Attributes:
        recipe: name of the recipe, for messages.
        recipe_text: the recipe as it was read.
        shown_recipe: the same without paths of this machine, as it goes along.
        seed: of methods that draw random numbers.
        rounding: to the nearest value that the dtype has, or at random to one of the two.
        sources: the folder each source of the recipe was found in, and each adapter.
        depths: how many layers each of them has; adapters have none.
        repos: the commit that a folder is of, for those in the Hub's cache.
        identities: the sources' files, as they were before they were read.
        tensors: the tensors of the result, in the order of shards and offsets.
        shards: its files.
        config: its config.json.
        sidecars: files that are copied beside.
        layer_map: where each of its layers came from.
        notes: what the user should know before the start.
        destination: the folder to make, where the recipe or the caller names one.
        push: the repository it goes to as well, where one is named.
        push_only: whether it goes there alone, shard by shard, and none of it is kept.
        allow_nonfinite: whether NaNs and infinities in what is computed are let pass.
        own_files: files that are made here and go along: tokenizer, model card, recipe, layer map.
        parsed: tokens and merges of tokenizers that were parsed to make it.
    """

    recipe: str
    recipe_text: str
    shown_recipe: str
    seed: int
    rounding: Literal["nearest", "stochastic"]
    sources: Mapping[str, Path]
    depths: Mapping[str, int]
    repos: Mapping[Path, Repo]
    identities: Mapping[Path, Identity]
    tensors: tuple[OutputTensor, ...]
    shards: tuple[Shard, ...]
    config: Mapping[str, Any]
    sidecars: tuple[SidecarFile, ...]
    layer_map: tuple[LayerOrigin, ...]
    notes: tuple[str, ...]
    destination: Path | None = None
    push: str | None = None
    push_only: bool = False
    allow_nonfinite: bool = False
    own_files: tuple[OwnFile, ...] = ()
    parsed: int = 0

    @cached_property
    def bytes_read(self) -> int:
        """Bytes of tensors that a run reads, all passes counted."""
        if self.push_only:  # what is in several shards is made again for each
            return sum(self.bytes_read_for(shard) for shard in self.shards)
        return sum(batch[0].bytes_read for batch in batches(self.tensors))

    def bytes_read_for(self, shard: Shard) -> int:
        """Bytes of tensors that one shard is made of, all passes counted."""
        tensors = [tensor for tensor in self.tensors if tensor.shard == shard.name]
        return sum(batch[0].bytes_read for batch in batches(tensors))

    @property
    def bytes_on_disk(self) -> int:
        """The most bytes of the result that are on the disk at a time."""
        if not self.push_only:
            return self.bytes_written + self.bytes_beside
        return max((shard.nbytes for shard in self.shards), default=0) + self.bytes_beside

    @cached_property
    def bytes_written(self) -> int:
        """Bytes of the result's shards, headers included."""
        return sum(shard.nbytes for shard in self.shards)

    @property
    def bytes_beside(self) -> int:
        """Bytes of the files that go along."""
        beside = sum(sidecar.identity.nbytes for sidecar in self.sidecars)
        return beside + sum(len(own.data) for own in self.own_files)

    @property
    def parameters(self) -> int:
        """Number of elements of the result's tensors."""
        return sum(tensor.spec.elements for tensor in self.tensors)

    @property
    def seams(self) -> tuple[int, ...]:
        """Layers that get another input than in their source.

        A new layer is none, since what lies below it is what lay below its original's successor.
        """
        return tuple(
            layer
            for layer in range(1, len(self.layer_map))
            if not self.layer_map[layer].new
            and not self.layer_map[layer].follows(self.layer_map[layer - 1])
        )

    def jobs(self) -> Iterator[tuple[Node, DType]]:
        """What each tensor is made of, and the dtype it is written in."""
        return ((tensor.node, tensor.spec.dtype) for tensor in self.tensors)

    def inputs(self) -> dict[Path, Identity]:
        """Every file that the result depends on, as it was before it was read."""
        return {**self.identities, **{s.path: s.identity for s in self.sidecars}}

    def to_fetch(self, *, shards: bool = True) -> dict[Path, RemoteFile]:
        """The files that a run reads and that are not here; the small ones alone, or shards too."""
        read = {sidecar.path for sidecar in self.sidecars} | (self.paths() if shards else set())
        return {
            path: identity
            for path, identity in self.inputs().items()
            if path in read and isinstance(identity, RemoteFile)
        }

    def with_files(self, found: Mapping[Path, FileIdentity]) -> "Plan":
        """The same plan when files of it have come."""
        return replace(
            self,
            identities={path: found.get(path, was) for path, was in self.identities.items()},
            sidecars=tuple(
                replace(sidecar, identity=found.get(sidecar.path, sidecar.identity))
                for sidecar in self.sidecars
            ),
        )

    def paths(self) -> set[Path]:
        """The files that tensor bytes are read from."""
        return {s.tensor.path for tensor in self.tensors for s in stored_in(tensor.node)}


def batches(tensors: Iterable[OutputTensor]) -> list[tuple[OutputTensor, ...]]:
    """The tensors, those together that are one and the same: made once, written to several places.

    A stack that takes a layer twice has such. Their places begin at the same offset within a page,
    so that one piece of memory suits the direct writes to all of them.
    """
    same: dict[tuple[int, DType, int], list[OutputTensor]] = {}
    for tensor in tensors:
        key = id(tensor.node), tensor.spec.dtype, tensor.offset % PAGE
        same.setdefault(key, []).append(tensor)
    return [tuple(batch) for batch in same.values()]


def read_twice(plan: Plan) -> frozenset[StoredTensor]:
    """The stored tensors that are read more than once for one tensor of the result."""
    return frozenset(tensor for made in plan.tensors for tensor in read_twice_in(made.node))


def surveyed_in(
    tensors: Iterable[OutputTensor],
) -> list[tuple[StreamedOperator, list[Streamed]]]:
    """Operators that have to see all their tensors before they make any, the innermost first."""
    found: dict[int, tuple[StreamedOperator, dict[str, Streamed]]] = {}
    inside: dict[int, set[int]] = {}

    def look(node: Node) -> set[int]:
        """The operators of a node and its inputs."""
        if isinstance(node, Stored | Zeros):
            return set()
        there = set().union(*map(look, node.inputs))
        if not isinstance(node, Streamed) or not node.operator.surveys():
            return there
        key = id(node.operator)
        found.setdefault(key, (node.operator, {}))[1][node.name] = node
        inside.setdefault(key, set()).update(there)
        return {*there, key}

    for tensor in tensors:
        look(tensor.node)
    ordered = [found[key] for key in TopologicalSorter(inside).static_order()]
    return [(operator, list(nodes.values())) for operator, nodes in ordered]
