"""Copies of a training's state in the processor's memory, to be written while it goes on."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

_WORTH_LOCKING = 1 << 20
"""Fewest bytes of a tensor whose copy is page-locked: the call takes some microseconds."""


class Staging:
    """Memory that the same state is copied to again and again; made at the first copy.

    New memory is paid for with a fault for each of its pages. To memory that is page-locked, a GPU
    copies by itself: all tensors are asked for, and waited for once. torch's own allocator of such
    memory would round every tensor up to a power of two.
    """

    def __init__(self) -> None:
        self._copies: dict[tuple[object, ...], Tensor] = {}
        self._locked: list[Tensor] = []

    @torch.no_grad()
    def copy(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The state as it is now; what an earlier call has returned becomes the same.

        Args:
            state: of the same names, shapes and dtypes at every call. Of a DTensor this rank's part
                is copied, without its padding.

        Raises:
            RuntimeError: there is no memory for it, or none that can be page-locked.
        """
        copies: dict[str, Any] = self._copied((), state)
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.current_stream().synchronize()
        return copies

    def close(self) -> None:
        """Let go of the memory; nobody may read the copies any more."""
        for copy in self._locked:  # where one fails, so has the GPU, which says why elsewhere
            _cuda().cudaHostUnregister(copy.data_ptr())
        self._locked.clear()
        self._copies.clear()

    def _copied(self, place: tuple[object, ...], state: Any) -> Any:
        if isinstance(state, Tensor):
            return self._copied_tensor(place, state.detach())
        if isinstance(state, Mapping):
            return {key: self._copied((*place, key), value) for key, value in state.items()}
        if isinstance(state, list | tuple):
            return type(state)(self._copied((*place, i), value) for i, value in enumerate(state))
        return state

    def _copied_tensor(self, place: tuple[object, ...], tensor: Tensor) -> Tensor:
        copy = self._copies.get(place)
        if copy is None:
            copy = self._copies[place] = tensor.to("cpu", copy=True)
            if _local(tensor).is_cuda:
                self._lock(_local(copy))
            return copy
        assert (copy.shape, copy.dtype) == (tensor.shape, tensor.dtype), place
        _local(copy).copy_(_local(tensor), non_blocking=True)
        return copy

    def _lock(self, copy: Tensor) -> None:
        if copy.nbytes < _WORTH_LOCKING:
            return
        if code := int(_cuda().cudaHostRegister(copy.data_ptr(), copy.nbytes, 0)):
            raise RuntimeError(f"{copy.nbytes} bytes cannot be page-locked: CUDA's error {code}")
        self._locked.append(copy)


def state_bytes(state: Any) -> int:
    """Bytes of all tensors of a state, of all ranks together."""
    if isinstance(state, Tensor):
        return state.numel() * state.itemsize
    inside = state.values() if isinstance(state, Mapping) else state
    return sum(map(state_bytes, inside)) if isinstance(state, Mapping | list | tuple) else 0


def _cuda() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
