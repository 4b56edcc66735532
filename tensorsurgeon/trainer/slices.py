"""A checkpoint's tensors, read straight into the slices of a model that each rank holds."""

from collections.abc import Iterator
from contextlib import closing

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tensorsurgeon.checkpoint import Checkpoint, FileIdentity, ShardReader
from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.specs import DType, StoredTensor
from tensorsurgeon.trainer.model import LanguageModel

_PIECE = 8 << 20
"""Bytes read at a time."""

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
    """Reads rows of a checkpoint's tensors; to be closed.

    Raises:
        CheckpointError: a file cannot be opened, or has changed since its header was read.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        paths = {tensor.path for tensor in checkpoint.tensors.values()}
        identities = {path: checkpoint.identities[path] for path in paths}
        here = {p: found for p, found in identities.items() if isinstance(found, FileIdentity)}
        self._reader = ShardReader(here)
        self._buffer = bytearray(_PIECE)

    def pieces(self, stored: StoredTensor, start: int, stop: int) -> Iterator[tuple[int, Tensor]]:
        """Consecutive elements of a tensor, from `start` up to `stop`.

        Yields:
            Where a piece begins, in elements from `start`, and its values in the stored dtype; they
            hold until the next piece.

        Raises:
            CheckpointError: torch has no such dtype, the file was cut or the disk failed.
        """
        dtype = _TORCH.get(stored.spec.dtype)
        if dtype is None:
            what = f"'{stored.spec.name}' is {stored.spec.dtype.value}, which cannot be trained"
            raise CheckpointError(what, where=str(stored.path))
        size = stored.spec.dtype.bits // 8
        step = _PIECE // size
        for at in range(start, stop, step):
            count = min(step, stop - at)
            view = memoryview(self._buffer)[: count * size]
            self._reader.read_into(stored, at * size, view)
            yield at - start, torch.frombuffer(view, dtype=dtype, count=count)

    def read(self, stored: StoredTensor, into: Tensor, start: int = 0) -> None:
        """Fill a contiguous tensor with consecutive elements of a stored one.

        Args:
            stored: the tensor.
            into: of any dtype and device.
            start: the first element to read.
        """
        flat = into.view(-1)
        for at, piece in self.pieces(stored, start, start + flat.numel()):
            flat[at : at + piece.numel()].copy_(piece)

    def close(self) -> None:
        """Let go of the files."""
        self._reader.close()


def local_slice(parameter: Tensor) -> tuple[Tensor, int]:
    """What of a parameter is on this rank, and its first element in the whole.

    Args:
        parameter: whole, or sharded over its first dimension, over the last dimension of its mesh.

    Returns:
        A tensor of whole rows, and how many elements come before them.
    """
    if not isinstance(parameter, DTensor):
        return parameter, 0
    local, mesh = parameter.to_local(), parameter.device_mesh
    per_rank = -(-parameter.shape[0] // mesh.size(mesh.ndim - 1))
    row = min(per_rank * mesh.get_local_rank(mesh.ndim - 1), parameter.shape[0])
    return local, row * (parameter.numel() // max(parameter.shape[0], 1))


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
        for name, parameter in model.parameters():
            local, start = local_slice(parameter)
            values = torch.empty(local.shape, dtype=torch.float32, device=device)
            reader.read(model.stored[name], values, start)
            state[name] = nn.Parameter(_as(parameter, values), parameter.requires_grad)
        for name, buffer in model.module.named_buffers():
            if name in model.stored:
                reader.read(model.stored[name], buffer)
        _check_tied(model, reader)
    for name, buffer in list(model.module.named_buffers()):
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
    """A tied tensor that is stored all the same must say the same."""
    for name, other in model.tied.items():
        if name not in model.stored:
            continue
        one, two = model.stored[name], model.stored[other]
        values = torch.empty(min(_PIECE // 8, one.spec.elements), dtype=torch.float64)
        for at in range(0, one.spec.elements, len(values)):
            part = values[: one.spec.elements - at]
            reader.read(two, part, at)
            if any(
                not torch.equal(piece.to(torch.float64), part[start : start + len(piece)])
                for start, piece in reader.pieces(one, at, at + len(part))
            ):
                raise CheckpointError(
                    f"'{name}' and '{other}' differ, and config.json ties them",
                    where=str(model.stored[name].path),
                    fix="set tie_word_embeddings to false in config.json, or remove one of them",
                )


def squared_distances(
    model: LanguageModel, checkpoint: Checkpoint
) -> dict[str, tuple[float, float]]:
    """How far this rank's slices are from the checkpoint's values.

    Returns:
        Of each parameter the squared norms, of the difference and of the checkpoint's values.
    """
    found = {}
    with closing(TensorReader(checkpoint)) as reader, torch.no_grad():
        for name, parameter in model.parameters():
            local, start = local_slice(parameter)
            flat = local.detach().reshape(-1)
            moved = was = torch.zeros((), dtype=torch.float64, device=flat.device)
            for at, piece in reader.pieces(model.stored[name], start, start + flat.numel()):
                before = piece.to(flat.device).float()
                after = flat[at : at + len(piece)]
                moved = moved + (after - before).square().sum(dtype=torch.float64)
                was = was + before.square().sum(dtype=torch.float64)
            found[name] = moved.item(), was.item()
    return found
