"""A tiny training whose result is written again and again, and a disk that ends it at will."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tensorsurgeon.trainer.export import Export, write_checkpoint
from tensorsurgeon.writing import Disk
from tests.cli.checkpoints import file_bytes, llama_config, llama_tensors
from tests.cli.checkpoints import write_checkpoint as write_folder
from tests.trainer.export.models import export_of, files_of

KEPT = ("norm", "embed", "down")


class KilledError(BaseException):
    """Raised in place of the operation at which a run is killed, and of all it tries after it."""


class MortalDisk(Disk):
    """A disk whose user is killed when it has done so many operations."""

    def __init__(self, operations: int) -> None:
        self.left = operations

    def __getattribute__(self, name: str) -> Any:
        if name in vars(Disk) and not name.startswith("_"):
            self.left -= 1
            if self.left < 0:
                raise KilledError
        return super().__getattribute__(name)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training of a tiny model, the same whenever it is told of.

    Attributes:
        source: the model.
        export: what is written.
        want: the files it gives.
    """

    source: Path
    export: Export
    want: dict[str, bytes]

    def write(self, final: Path, *, overwrite: bool = False, disk: Disk | None = None) -> None:
        write_checkpoint(self.export, final, trained, overwrite=overwrite, disk=disk)


def trained(name: str) -> Tensor | None:
    """The values of a training; a norm was left alone."""
    shapes = {tensor: values.shape for tensor, values in tensors().items()}
    if name.endswith("layers.0.input_layernorm.weight"):
        return None
    chance = torch.Generator().manual_seed(len(name))
    return torch.randn(shapes[name], generator=chance)


def tensors() -> dict[str, Any]:
    """Of one layer; the embedding has a page and a bit, so that some of it is written directly."""
    of_layer = llama_tensors(1, vocab=300)
    return {name: t for name, t in of_layer.items() if any(word in name for word in KEPT)}


def make_source(folder: Path) -> Path:
    write_folder(folder, tensors(), llama_config(1, vocab=300))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def make_job(folder: Path) -> Job:
    export = export_of(make_source(folder / "model"), depth=1, max_shard_size=5_000)
    assert len(export.shards) > 1
    write_checkpoint(export, folder / "out", trained)
    return Job(source=folder / "model", export=export, want=files_of(folder / "out"))


def put(old: Path, final: Path) -> dict[str, bytes]:
    """Lays the old checkpoint at a place; its files."""
    final.mkdir(parents=True)
    for path in old.iterdir():
        (final / path.name).write_bytes(path.read_bytes())
    return file_bytes(final)
