"""Cross-entropy and log-probabilities of a linear head, without ever holding all logits.

The loss of pretraining is the cross-entropy of every token's successor; that of supervised
fine-tuning is the same with the prompt's labels masked, so both are `linear_cross_entropy`.
Preferences (DPO) are made of `token_log_probs`.

N positions times V words of float32 logits are the largest thing in training by far: 6.4 GB for
32768 positions and 49152 words, and the softmax, its gradient and the logits are three of them.
Here rows go through the head a chunk at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tensorsurgeon.trainer.data import IGNORED

_CHUNK_BYTES = {"cpu": 32 << 20, "cuda": 256 << 20}
"""Of a chunk's logits in float32. On a CPU the time is the same from 24 to 256 MiB; below, the
matrix products have too few rows."""

_TILE = 64
"""Rows of a matrix product that go together; no chunk has fewer."""


def rows_per_chunk(vocabulary: int, device: torch.device) -> int:
    """Rows of logits that are held at once: 256 MiB of them in float32, on a CPU 32 MiB."""
    held = _CHUNK_BYTES.get(device.type, _CHUNK_BYTES["cuda"])
    return max(held // (4 * vocabulary) // _TILE, 1) * _TILE


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    chunk: int | None = None,
    compiled: bool = False,
) -> Tensor:
    """The sum of -log p(label) over all positions that have a label, in nats.

    The gradients are made chunk by chunk on the way forward and only scaled on the way back, so no
    logits are computed twice. Logits are rounded to the compute dtype, as the head's own would be;
    from there to the loss and the logits' gradient all is float32. The caller divides by the step's
    labels over all ranks.

    Args:
        hidden: (N, d) last hidden states; their dtype is the one that is computed in.
        weight: (V, d) of the head, which may be the embedding.
        labels: (N,) int64, `IGNORED` where nothing is learned: such rows are never multiplied. Left
            on the CPU, they spare a GPU from being waited for.
        bias: (V,) of the head.
        softcap: c of c * tanh(logit / c), as Gemma 2 ends.
        scale: what the logits are multiplied by before that, as Cohere's and Granite's are.
        chunk: rows of logits held at once; chosen by their size where None.
        compiled: whether what is done to logits elementwise goes through torch.compile.

    Returns:
        () float32 (float64 where `hidden` is). Gradients are in the dtypes of what they are of;
        the weight's is accumulated in float32 and rounded once.
    """
    return cast(
        "Tensor",
        _SumOfLosses.apply(  # type: ignore[no-untyped-call]
            hidden,
            weight,
            bias,
            labels,
            _Settings(softcap=softcap, scale=scale, chunk=chunk, compiled=compiled),
            torch.is_grad_enabled(),
        ),
    )


def token_log_probs(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    chunk: int | None = None,
    compiled: bool = False,
) -> Tensor:
    """The log-probability of each position's label, in nats.

    For losses that weigh tokens by what is known only once all are seen. The way back computes
    each chunk's logits again: one more matrix product than `linear_cross_entropy`.

    Args:
        hidden: as of `linear_cross_entropy`, as all the others.
        weight: of the head.
        labels: of the positions.
        bias: of the head.
        softcap: of the logits.
        scale: of the logits.
        chunk: rows held at once.
        compiled: whether to use torch.compile.

    Returns:
        (N,) float32 (float64 where `hidden` is); 0 where there is no label.
    """
    return cast(
        "Tensor",
        _LogProbs.apply(  # type: ignore[no-untyped-call]
            hidden,
            weight,
            bias,
            labels,
            _Settings(softcap=softcap, scale=scale, chunk=chunk, compiled=compiled),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Settings:
    softcap: float | None
    scale: float | None
    chunk: int | None
    compiled: bool


@dataclass(frozen=True, kw_only=True)
class _Swept:
    """What a pass over all chunks gives: losses, and the gradients that were asked for."""

    losses: Tensor  # (N,), 0 where there is no label
    hidden: Tensor | None = None  # (N, d), in the dtype of the hidden states
    weight: Tensor | None = None  # (V, d) float32
    bias: Tensor | None = None  # (V,) float32


class _SumOfLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        settings: _Settings,
        differentiable: bool,
    ) -> Tensor:
        # needs_input_grad speaks of the inputs alone, and is true under no_grad as well.
        needed = tuple(differentiable and needs for needs in ctx.needs_input_grad[:3])
        swept = _sweep(hidden, weight, bias, labels, settings, needed=needed)
        ctx.gradients = (swept.hidden, swept.weight, swept.bias)
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        return swept.losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        assert gradients is not None, "the gradients were given away at the first backward pass"
        scaled = (
            None if gradient is None else gradient.mul_(outer).to(dtype)
            for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)
        )
        return (*scaled, None, None, None)


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        settings: _Settings,
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias, labels)
        ctx.settings = settings
        return _sweep(hidden, weight, bias, labels, settings).losses.neg_()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, labels = ctx.saved_tensors
        needed = ctx.needs_input_grad[:3]
        swept = _sweep(hidden, weight, bias, labels, ctx.settings, needed=needed, outer=-outer)
        return (
            swept.hidden,
            None if swept.weight is None else swept.weight.to(weight.dtype),
            None if swept.bias is None else swept.bias.to(bias.dtype),
            None,
            None,
        )


def _sweep(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    settings: _Settings,
    *,
    needed: tuple[bool, ...] = (False, False, False),
    outer: Tensor | None = None,
) -> _Swept:
    """One pass over the chunks, forward and, for what is needed, back.

    Args:
        hidden: (N, d).
        weight: (V, d).
        bias: (V,).
        labels: (N,).
        settings: of the logits.
        needed: which gradients: of hidden states, weight, bias.
        outer: (N,) gradient of each position's loss; 1 where None.
    """
    device, dtype, vocabulary = hidden.device, hidden.dtype, weight.shape[0]
    exact = torch.promote_types(dtype, torch.float32)
    kept = (labels != IGNORED).nonzero().squeeze(1)
    targets, kept = _moved(labels[kept], device), _moved(kept, device)
    head = weight.to(dtype).t()
    chunk = settings.chunk or rows_per_chunk(vocabulary, device)
    on_logits = _compiled_on_logits() if settings.compiled else _on_logits
    buffer = torch.empty(min(chunk, len(kept)), vocabulary, dtype=dtype, device=device)

    losses = torch.zeros(hidden.shape[0], dtype=exact, device=device)
    for_hidden = torch.zeros_like(hidden) if needed[0] else None
    for_weight = torch.zeros(weight.shape, dtype=exact, device=device) if needed[1] else None
    for_bias = torch.zeros(vocabulary, dtype=exact, device=device) if needed[2] else None
    for rows, target in zip(torch.split(kept, chunk), torch.split(targets, chunk), strict=True):
        inputs = hidden.index_select(0, rows)
        logits = torch.mm(inputs, head, out=buffer[: len(rows)])
        if bias is not None:
            logits += bias
        weights = None if outer is None else outer.index_select(0, rows)[:, None]
        loss, slope = on_logits(
            logits, target, weights, settings.scale, settings.softcap, any(needed)
        )
        losses.index_copy_(0, rows, loss)
        if for_hidden is not None:
            for_hidden.index_copy_(0, rows, slope @ head.t())
        if for_weight is not None:
            _add_product(for_weight, slope.t(), inputs)
        if for_bias is not None:
            for_bias += slope.sum(0, dtype=exact)
    return _Swept(losses=losses, hidden=for_hidden, weight=for_weight, bias=for_bias)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The same on a device; from the processor's memory without its being waited for."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right to a float32 total, without rounding the product to less."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    elif total.is_cuda:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:  # no other device multiplies halves into float32
        total.addmm_(left.to(total.dtype), right.to(total.dtype))


def _on_logits(
    logits: Tensor,
    target: Tensor,
    weights: Tensor | None,
    scale: float | None,
    softcap: float | None,
    differentiate: bool,
) -> tuple[Tensor, Tensor]:
    """Losses of a chunk's rows, and their gradient by the logits.

    With z = c * tanh(s * logit / c) the loss is log(sum(exp(z))) - z[target], and its gradient
    (softmax(z) - onehot(target)) * (1 - (z / c)^2) * s. One buffer of float32 does for all of it.

    Args:
        logits: (n, V) in the compute dtype; overwritten.
        target: (n,) int64.
        weights: (n, 1) what each row's gradient is multiplied by.
        scale: s; 1 where None.
        softcap: c; infinite where None.
        differentiate: whether the gradient is wanted.

    Returns:
        (n,) float32 and (n, V) in the compute dtype; the latter is undefined where it was not
        wanted.
    """
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if scale is not None:
        z.mul_(scale)
    bend = None
    if softcap is not None:
        z.div_(softcap).tanh_()
        bend = 1 - z * z if differentiate else None
        z.mul_(softcap)
    picked = z.gather(1, target[:, None])
    top = z.amax(1, keepdim=True)
    total = z.sub_(top).exp_().sum(1, keepdim=True)
    loss = (total.log() + (top - picked)).squeeze(1)
    if not differentiate:
        return loss, logits
    z.div_(total)
    if torch.compiler.is_compiling():  # a scatter would be a kernel of its own
        words = torch.arange(z.shape[1], device=z.device)
        z = torch.where(words == target[:, None], z - 1, z)
    else:
        z.scatter_add_(1, target[:, None], torch.full_like(picked, -1))
    if bend is not None:
        z.mul_(bend)
    if scale is not None:
        z.mul_(scale)
    if weights is not None:
        z.mul_(weights)
    return loss, z.to(logits.dtype)


@cache
def _compiled_on_logits() -> Callable[..., tuple[Tensor, Tensor]]:
    return torch.compile(_on_logits, dynamic=True)
