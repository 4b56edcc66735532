"""What will be written of a training, known before its first step: layout, config, provenance."""

import copy
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tensorsurgeon import __version__
from tensorsurgeon.checkpoint import Checkpoint, Manifest, Shard, lay_out
from tensorsurgeon.errors import PlanError
from tensorsurgeon.specs import TORCH_NAMES, DType, StoredTensor, TensorSpec
from tensorsurgeon.trainer.export.provenance import (
    digest_of,
    read_surgery,
    source_entry,
    source_name,
)
from tensorsurgeon.trainer.export.sidecars import without_code
from tensorsurgeon.trainer.export.training import Training

MAX_SHARD_SIZE = 5_000_000_000


@dataclass(frozen=True, kw_only=True)
class ExportedTensor:
    """One tensor of the result.

    Attributes:
        spec: its name, dtype and shape as written.
        stored: the tensor of the checkpoint that was trained.
        shard: the file it goes to.
        offset: where its bytes begin there.
    """

    spec: TensorSpec
    stored: StoredTensor
    shard: str
    offset: int


@dataclass(frozen=True, kw_only=True)
class Export:
    """Everything about a result but the values of its tensors.

    Attributes:
        checkpoint: what was trained.
        surgery: its manifest, if it has one.
        training: what was done to it.
        depth: layers of the model.
        shards: the files of weights.
        config: its config.json.
        source: the manifest's entry of what was trained.
    """

    checkpoint: Checkpoint
    surgery: Manifest | None
    training: Training
    depth: int
    shards: tuple[Shard, ...]
    config: Mapping[str, Any]
    source: Mapping[str, Any]

    @cached_property
    def tensors(self) -> tuple[ExportedTensor, ...]:
        """Every tensor, in the order of shards and offsets."""
        return tuple(self._tensors())

    def _tensors(self) -> Iterator[ExportedTensor]:
        for shard in self.shards:
            for spec, offset in zip(shard.specs, shard.offsets, strict=True):
                stored = self.checkpoint.tensors[spec.name]
                yield ExportedTensor(spec=spec, stored=stored, shard=shard.name, offset=offset)

    @property
    def nbytes(self) -> int:
        """Bytes of the files of weights."""
        return sum(shard.nbytes for shard in self.shards)

    @cached_property
    def sources(self) -> dict[str, Any]:
        """The manifest's sources: the surgery's, and what was trained."""
        before = dict(self.surgery.sources) if self.surgery else {}
        return before | {source_name(self.surgery): dict(self.source)}

    @cached_property
    def binding(self) -> str:
        """SHA-256 of all that decides what is written: the same training has the same."""
        training = self.training
        return digest_of(
            [
                __version__,
                training.run_file,
                training.seed,
                training.parameters,
                self.sources,
                self.config,
                [[shard.name, hashlib.sha256(shard.header).hexdigest()] for shard in self.shards],
            ]
        )


def plan_export(
    checkpoint: Checkpoint,
    training: Training,
    *,
    depth: int,
    dtype: str | None = None,
    max_shard_size: int = MAX_SHARD_SIZE,
) -> Export:
    """Work out what will be written; the same on all ranks.

    Args:
        checkpoint: what is trained.
        training: what is done to it.
        depth: layers of the model.
        dtype: torch's name of that of every tensor of floating point; each keeps its own by
            default.
        max_shard_size: most bytes of a shard's tensors.

    Raises:
        CheckpointError: files of the checkpoint cannot be read any more.
        ManifestError: its manifest is damaged, or was made for other weights.
        PlanError: a tensor does not fit a shard, or a quantized model was asked for in a dtype.
    """
    if dtype is not None and "quantization_config" in checkpoint.config:
        raise PlanError(
            "output: dtype cannot be applied to a quantized model, whose stored numbers mean "
            "nothing without their scales",
            where=str(checkpoint.path),
            fix="leave dtype out",
        )
    specs = [_as_written(tensor.spec, dtype) for tensor in checkpoint.tensors.values()]
    surgery = read_surgery(checkpoint)
    return Export(
        checkpoint=checkpoint,
        surgery=surgery,
        training=training,
        depth=depth,
        shards=lay_out(specs, max_shard_size),
        config=_config(checkpoint.config, specs),
        source=source_entry(checkpoint, surgery),
    )


def _as_written(spec: TensorSpec, dtype: str | None) -> TensorSpec:
    if dtype is None or not spec.dtype.computable:
        return spec
    return TensorSpec(name=spec.name, dtype=TORCH_NAMES[dtype], shape=spec.shape)


def _config(config: Mapping[str, Any], specs: list[TensorSpec]) -> dict[str, Any]:
    """The config with the dtype that most numbers of the weights have, and without code."""
    new: dict[str, Any] = without_code(copy.deepcopy(dict(config)))
    counts: Counter[DType] = Counter()
    for spec in specs:
        if spec.dtype.computable:
            counts[spec.dtype] += spec.elements
    if not counts or "quantization_config" in config:
        return new
    name = {dtype: name for name, dtype in TORCH_NAMES.items()}[counts.most_common(1)[0][0]]
    for part in (new, *(value for value in new.values() if isinstance(value, dict))):
        for key in ("dtype", "torch_dtype"):
            if key in part:
                part[key] = name
    if "dtype" not in new and "torch_dtype" not in new:
        new["dtype"] = name
    return new
