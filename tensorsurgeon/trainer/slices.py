"""A checkpoint's tensors, read straight into each rank's slices of a model, and put together again.

Nothing here takes more memory than the slice itself and a few MB.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import accumulate
from operator import mul

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tensorsurgeon.checkpoint import Checkpoint, FileIdentity, ShardReader
from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.specs import DType, StoredTensor
from tensorsurgeon.trainer.conversion import Form, Piece
from tensorsurgeon.trainer.model import LanguageModel

_PIECE = 8 << 20
"""Bytes read at a time."""

_GATHERED = 64 << 20
"""Bytes of a parameter that are gathered at a time."""

_TORCH: dict[DType, torch.dtype] = {
    DType.F64: torch.float64,
    DType.F32: torch.float32,
    DType.F16: torch.float16,
    DType.BF16: torch.bfloat16,
    DType.F8_E4M3: torch.float8_e4m3fn,
    DType.F8_E5M2: torch.float8_e5m2,
    DType.I64: torch.int64,
    DType.I32: torch.int32,
    DType.I16: torch.int16,
    DType.I8: torch.int8,
    DType.U8: torch.uint8,
    DType.BOOL: torch.bool,
}


class TensorReader:
    """Reads what rows of a model's tensors are made of; to be closed.

    Raises:
        CheckpointError: a file cannot be opened, or has changed since its header was read.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        paths = {tensor.path for tensor in checkpoint.tensors.values()}
        identities = {path: checkpoint.identities[path] for path in paths}
        here = {p: found for p, found in identities.items() if isinstance(found, FileIdentity)}
        self._reader = ShardReader(here)
        self._buffer = bytearray(_PIECE)

    def values(self, form: Form, rows: Tensor, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """What is stored of some rows of a tensor, a few MB at a time.

        Args:
            form: what the whole tensor is made of.
            rows: some of its rows, one after the other and contiguous; or all of it.
            first: the row of the whole that they begin with.

        Yields:
            (n,) a view of `rows`, and (n,) the values stored for it in their own dtype; these hold
            until the next are asked for. Together the views are all of `rows`.

        Raises:
            CheckpointError: torch has no such dtype, the file was cut or the disk failed.
        """
        for piece in form:
            here = piece.within(0, first, first + len(rows)) if rows.ndim else piece
            if here is None:
                continue
            for start, run in _runs(here, here.of_model(rows)):
                for at, values in self._read(here.stored, start, run.numel()):
                    yield run[at : at + len(values)], values

    def read(self, form: Form, rows: Tensor, first: int = 0) -> None:
        """Fill some rows of a tensor, of any dtype and device, with what is stored.

        Args and errors are those of `values`.
        """
        for part, values in self.values(form, rows, first):
            part.copy_(values)

    def _read(self, stored: StoredTensor, start: int, count: int) -> Iterator[tuple[int, Tensor]]:
        """Consecutive elements of a stored tensor: where each part begins, and its values."""
        dtype = _TORCH.get(stored.spec.dtype)
        if dtype is None:
            what = f"'{stored.spec.name}' is {stored.spec.dtype.value}, which cannot be trained"
            raise CheckpointError(what, where=str(stored.path))
        size = stored.spec.dtype.bits // 8
        step = _PIECE // size
        for at in range(0, count, step):
            here = min(step, count - at)
            view = memoryview(self._buffer)[: here * size]
            self._reader.read_into(stored, (start + at) * size, view)
            yield at, torch.frombuffer(view, dtype=dtype, count=here)

    def close(self) -> None:
        """Let go of the files."""
        self._reader.close()


def _runs(piece: Piece, into: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Where consecutive elements of a stored tensor go.

    Args:
        piece: a box of the stored tensor.
        into: of as many elements in the same order, a view.

    Yields:
        The first of the elements, in the stored tensor, and the (n,) view that n of them fill.
    """
    shape = piece.stored.spec.shape
    steps = list(accumulate((1, *shape[:0:-1]), mul))[: len(shape)][::-1]
    first = sum(index * step for index, step in zip(piece.start, steps, strict=True))

    def descend(
        first: int, dims: list[tuple[int, int]], into: Tensor
    ) -> Iterator[tuple[int, Tensor]]:
        together = [size * step for size, step in dims[1:]] + [1]
        fits = all(step == whole for (_, step), whole in zip(dims, together, strict=False))
        if fits and into.is_contiguous():
            yield first, into.view(-1)
            return
        for index in range(len(into)):
            yield from descend(first + index * dims[0][1], dims[1:], into[index])

    dims = [(size, step) for size, step in zip(piece.size, steps, strict=True) if size != 1]
    yield from descend(first, dims, into.squeeze())


def local_slice(parameter: Tensor) -> tuple[Tensor, int]:
    """What of a parameter is on this rank, and its first row in the whole.

    Args:
        parameter: whole, or sharded over its first dimension, over the last dimension of its mesh.

    Returns:
        A tensor of whole rows, and how many rows come before them.
    """
    if not isinstance(parameter, DTensor):
        return parameter, 0
    local, mesh = parameter.to_local(), parameter.device_mesh
    per_rank = -(-parameter.shape[0] // mesh.size(mesh.ndim - 1))
    return local, min(per_rank * mesh.get_local_rank(mesh.ndim - 1), parameter.shape[0])


def load_weights(model: LanguageModel, checkpoint: Checkpoint, device: torch.device) -> None:
    """Give every parameter its values: of sharded ones, each rank reads its own slice alone.

    Args:
        model: parameters on the meta device, sharded or not; they are float32 afterwards.
        checkpoint: where the values are.
        device: where they go.

    Raises:
        CheckpointError: it cannot be read, or a tied tensor is stored with other values.
    """
    state: dict[str, Tensor] = {}
    with closing(TensorReader(checkpoint)) as reader, torch.no_grad():
        _check_tied(model, reader)
        for name, parameter in model.parameters():
            local, first = local_slice(parameter)
            values = torch.empty(local.shape, dtype=torch.float32, device=device)
            reader.read(model.forms[name], values, first)
            state[name] = nn.Parameter(_as(parameter, values), parameter.requires_grad)
        for name, buffer in list(model.module.named_buffers()):
            reader.read(model.forms.get(name, ()), buffer)
            owner, _, last = name.rpartition(".")
            model.module.get_submodule(owner)._buffers[last] = buffer.to(device)
    state |= {name: state[other] for name, other in model.tied.items()}
    lacking = model.module.load_state_dict(state, strict=False, assign=True)
    assert not lacking.unexpected_keys
    parameters = dict(model.module.named_parameters(remove_duplicate=False))
    assert not any(parameter.is_meta for parameter in parameters.values())
    assert all(parameters[name] is parameters[other] for name, other in model.tied.items())


def _as(parameter: Tensor, local: Tensor) -> Tensor:
    """A slice as the parameter it is of."""
    if not isinstance(parameter, DTensor):
        return local
    return DTensor.from_local(
        local,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def _check_tied(model: LanguageModel, reader: TensorReader) -> None:
    """A tied tensor that is stored all the same must say the same.

    All of it is read on every rank, so that all of them find the same.
    """
    shapes = {name: parameter.shape for name, parameter in model.parameters()}
    for name, other in model.tied.items():
        if name not in model.forms:
            continue
        count, *row = shapes[other]
        step = max(1, _PIECE // 8 // max(1, math.prod(row)))
        for first in range(0, count, step):
            one = torch.empty(min(step, count - first), *row, dtype=torch.float64)
            two = torch.empty_like(one)
            reader.read(model.forms[name], one, first)
            reader.read(model.forms[other], two, first)
            if not torch.equal(one, two):
                raise CheckpointError(
                    f"'{name}' and '{other}' differ, and config.json ties them",
                    where=str(model.forms[name][0].stored.path),
                    fix="set tie_word_embeddings to false in config.json, or remove one of them",
                )


def squared_distances(model: LanguageModel, checkpoint: Checkpoint, names: Sequence[str]) -> Tensor:
    """How far this rank's slices are from the checkpoint's values.

    Returns:
        (names, 2) float64 on the processor: of each parameter the squared norms of the difference
        and of the checkpoint's values.
    """
    found = []
    with closing(TensorReader(checkpoint)) as reader, torch.no_grad():
        for name in names:
            local, first = local_slice(model.module.get_parameter(name))
            sums = torch.zeros(2, dtype=torch.float64, device=local.device)
            for after, stored in reader.values(model.forms[name], local.detach(), first):
                before = stored.to(after.device).float()
                sums[0] += (after - before).square().sum(dtype=torch.float64)
                sums[1] += before.square().sum(dtype=torch.float64)
            found.append(sums)
    return torch.stack(found).cpu() if found else torch.zeros(0, 2, dtype=torch.float64)


def stored_values(model: LanguageModel, name: str) -> Tensor:
    """A tensor as the checkpoint stores it, out of the parameters that it became; a collective.

    No more is gathered than is asked for: of experts that are stored one by one, a single one.

    Args:
        model: with its weights.
        name: of the stored tensor; it became parameters, one or several.

    Returns:
        All of it, float32, on the processor of the first rank; on others, without values.
    """
    parts = model.parts[name]
    device = "cpu" if dist.get_rank() == 0 else "meta"
    whole = torch.empty(parts[0][1].stored.spec.shape, dtype=torch.float32, device=device)
    for owner, piece in parts:
        parameter = model.module.get_parameter(owner)
        first, count = piece.at[0], piece.shape[0]
        step = max(1, _GATHERED // 4 // max(1, math.prod(piece.shape[1:])))
        for at in range(first, first + count, step):
            part = piece.within(0, at, at + step)
            assert part is not None
            values = _gather(parameter, part.moved(0, at))
            part.of_stored(whole).copy_(values.reshape(part.size))
    return whole


def _gather(parameter: Tensor, piece: Piece) -> Tensor:
    """A box of a parameter, on every rank; a collective."""
    local, first = local_slice(parameter.detach())
    box = local.new_zeros(piece.shape)
    here = piece.within(0, first, first + len(local))
    if here is not None:
        row = first + here.at[0] - piece.at[0]
        box[row : row + len(here.of_model(local))] = here.of_model(local)
    if isinstance(parameter, DTensor):
        mesh = parameter.device_mesh
        # Every rank adds its rows to zeros, as whole numbers: -0.0 + 0.0 would be 0.0.
        dist.all_reduce(box.view(torch.int32), group=mesh.get_group(mesh.ndim - 1))
    return box
