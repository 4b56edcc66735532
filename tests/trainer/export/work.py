"""What each rank of several does in the tests: writes a model whose parameters are sharded."""

import json
import shutil
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from tensorsurgeon.trainer.export import write_checkpoint
from tests.trainer.export.models import export_of, tensors_of
from tests.trainer.saving.ranks import joined

BROKEN = "model.layers.3.mlp.up_proj.weight"


def trained(folder: Path) -> dict[str, Tensor]:
    """Values of a training, by name."""
    chance = torch.Generator().manual_seed(8)
    return {
        name: tensor.float() + 0.1 * torch.randn(tensor.shape, generator=chance)
        for name, tensor in tensors_of(folder).items()
    }


def write(folder: Path, final: Path, broken: bool = False) -> list[str]:
    """Writes the training's result; the tensors that were gathered."""
    values = trained(folder)
    if broken:
        values[BROKEN][1, 1] = torch.inf
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    sharded = {name: distribute_tensor(whole, mesh, [Shard(0)]) for name, whole in values.items()}
    gathered: list[str] = []

    def full(name: str) -> Tensor:
        gathered.append(name)
        tensor = sharded[name]
        assert isinstance(tensor, DTensor)
        return tensor.full_tensor()

    write_checkpoint(export_of(folder), final, full)
    return gathered


def end_of(rank: int, store: str, source: Path, final: Path) -> tuple[str, str]:
    """How one of two ranks ends: the kind of its error, and what it says."""
    with joined(rank, 2, store):
        try:
            write(source, final)
        except Exception as error:
            return type(error).__name__, str(error)
    return "", ""


if __name__ == "__main__":
    # On a disk of its own, of which so many bytes are left: how the ranks end, and what is there.
    source, disk = map(Path, sys.argv[1:3])
    ballast, told = disk / "ballast", []
    for left in map(int, sys.argv[3:]):
        ballast.write_bytes(b" " * (shutil.disk_usage(disk).free - left))
        store = tempfile.mktemp(prefix="store")
        with get_context("fork").Pool(2) as pool:  # which need not import torch again
            ends = pool.starmap(end_of, [(rank, store, source, disk / "out") for rank in (0, 1)])
        ballast.unlink()
        there = sorted(path.name for path in disk.iterdir())
        told.append({"ends": ends, "there": there})
    print(json.dumps(told))
