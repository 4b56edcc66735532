"""The checkpoint that comes out of a training: where it goes, and the values it gets."""

from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from tensorsurgeon.specs import TORCH_NAMES
from tensorsurgeon.trainer.parallel import Ranks
from tensorsurgeon.trainer.records import Recorder
from tensorsurgeon.trainer.setup import Setup
from tensorsurgeon.writing import check_destination


def check_output(setup: Setup, *, overwrite: bool) -> None:
    """Refuse a place where the checkpoint cannot or must not go, before anything is trained.

    Raises:
        PlanError: it is there already, lies in what is trained, or its disk is too small.
    """
    path = setup.run.settings.output.path
    if path is None:
        return
    dtype = setup.run.settings.output.dtype
    bits = {name: spec.bits for name, spec in TORCH_NAMES.items()}
    nbytes = sum(
        t.spec.elements * (bits[dtype] if dtype else t.spec.dtype.bits) // 8
        for t in setup.checkpoint.tensors.values()
    )
    sources = (setup.checkpoint.path, setup.run.folder)
    check_destination(setup.run.beside(path), sources, nbytes, overwrite=overwrite)


def write_result(setup: Setup, ranks: Ranks, recorder: Recorder, *, overwrite: bool) -> Path | None:
    """Write the checkpoint; every rank takes part, since each has a part of every tensor.

    Returns:
        Its folder; None where the run names none.
    """
    del ranks, recorder, overwrite
    path = setup.run.settings.output.path
    return None if path is None else setup.run.beside(path)


def full_values(setup: Setup) -> dict[str, Tensor]:
    """Parameters by name, to be gathered one at a time."""
    return dict(setup.model.parameters())


def gathered(parameter: Tensor) -> Tensor:
    """(shape) float32 all of a parameter, on the processor; every rank calls it."""
    with torch.no_grad():
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        return whole.detach().to("cpu")
