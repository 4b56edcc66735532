"""How much of a forward pass is kept for the backward pass, measured on tensors without memory."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tensorsurgeon.trainer.model import LanguageModel
from tensorsurgeon.trainer.parallel import KEPT_OPERATORS

_NAME = "tensorsurgeon_forecast"


class _Attention(torch.autograd.Function):
    """Keeps what a fused attention keeps: its inputs, its output, a number a head and token."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, heads, T, d) in and out."""
        out = torch.empty_like(query)
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(_ctx: Any, *_: Any) -> Any:
        """Nothing goes backward here."""
        raise AssertionError


class _Kept(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what selective checkpointing keeps."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nbytes = 0

    def attention(
        self, _: nn.Module, query: Tensor, key: Tensor, value: Tensor, *__: Any, **___: Any
    ) -> Any:
        """As transformers calls one; its output is kept, and a number a head and token."""
        out = _Attention.apply(query, key, value)  # type: ignore[no-untyped-call]
        self.nbytes += out.nbytes + 4 * out[..., 0].numel()
        return out.transpose(1, 2), None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in KEPT_OPERATORS and isinstance(out, Tensor):
            self.nbytes += out.numel() * out.itemsize
        return out


@contextmanager
def _saved(parameters: set[int]) -> Iterator[dict[int, int]]:
    """Bytes of each storage that is saved for the backward pass, parameters left out."""
    found: dict[int, int] = {}
    alive = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            found[storage._cdata] = storage.nbytes()
            alive.append(storage)  # so that no other takes its number
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def layer_activations(
    model: LanguageModel, *, tokens: int, precision: torch.dtype
) -> tuple[int, int]:
    """Bytes one layer keeps for its backward pass; and those selective checkpointing keeps.

    Args:
        model: on the meta device.
        tokens: positions of a micro-batch.
        precision: of the computation.

    Returns:
        Of the layer that keeps most: everything, and the outputs of matrix products and attention.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    kept = _Kept()
    AttentionInterface.register(_NAME, kept.attention)
    AttentionMaskInterface.register(_NAME, lambda *_, **__: None)
    body: Any = copy.deepcopy(model.body).to(device="meta", dtype=precision)
    body.config._attn_implementation = _NAME
    for parameter in body.parameters():
        parameter.requires_grad_(True)
    own = {parameter.untyped_storage()._cdata for parameter in body.parameters()}
    layers = body.get_submodule(model.prefix.removeprefix(model.body_prefix)[:-1])
    most, kept_most = 0, 0
    for layer in layers:
        plain = layer.forward
        numbers: list[tuple[int, int]] = []

        def measured(*args: Any, plain: Any = plain, numbers: Any = numbers, **kwargs: Any) -> Any:
            before = kept.nbytes
            with _saved(own) as saved, kept:
                out = plain(*args, **kwargs)
            numbers.append((sum(saved.values()), kept.nbytes - before))
            return out

        layer.forward = measured
        layer.numbers = numbers
    mask = torch.empty(1, 1, 1, 1, device="meta")  # a mask of four dimensions is taken as it is
    body(torch.zeros(1, tokens, dtype=torch.int64, device="meta"), attention_mask=mask)
    for layer in layers:
        for everything, kept_of_it in layer.numbers:
            most, kept_most = max(most, everything), max(kept_most, kept_of_it)
    return most, kept_most
