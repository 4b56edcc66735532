"""The losses in float64 and all at once, and how far arithmetic of fewer bits may be from them."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tensorsurgeon.trainer.losses import IGNORED


@dataclass(frozen=True, kw_only=True)
class Head:
    """What goes into a loss."""

    hidden: Tensor
    weight: Tensor
    labels: Tensor
    bias: Tensor | None = None
    softcap: float | None = None
    scale: float | None = None

    @property
    def leaves(self) -> list[Tensor]:
        return [t for t in (self.hidden, self.weight, self.bias) if t is not None]

    def to(self, dtype: torch.dtype, device: str = "cpu") -> "Head":
        """The same numbers, rounded to a dtype; gradients are wanted. Labels stay on the CPU."""

        def leaf(t: Tensor) -> Tensor:
            return t.detach().to(device, dtype).requires_grad_()

        bias = None if self.bias is None else leaf(self.bias)
        changed = {"hidden": leaf(self.hidden), "weight": leaf(self.weight), "bias": bias}
        return Head(**vars(self) | changed)


def draw(
    n: int,
    d: int,
    v: int,
    *,
    masked: float = 0.3,
    bias: bool = False,
    softcap: float | None = None,
    scale: float | None = None,
    seed: int = 0,
) -> Head:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    labels = torch.randint(v, (n,), generator=generator)
    labels[torch.rand(n, generator=generator) < masked] = IGNORED
    return Head(
        hidden=normal(n, d),
        weight=normal(v, d),
        labels=labels,
        bias=normal(v) if bias else None,
        softcap=softcap,
        scale=scale,
    )


def logits(head: Head) -> Tensor:
    """(N, V), as Gemma's, Cohere's and Granite's papers and code have them."""
    z = functional.linear(head.hidden, head.weight, head.bias) * (head.scale or 1)
    return z if head.softcap is None else head.softcap * torch.tanh(z / head.softcap)


def losses(head: Head) -> Tensor:
    """(N,), 0 where there is no label."""
    return functional.cross_entropy(
        logits(head), head.labels, ignore_index=IGNORED, reduction="none"
    )


def gradients(loss: Tensor, head: Head) -> list[Tensor]:
    return list(torch.autograd.grad(loss, head.leaves))


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How far a computation with rounded logits may be off, from inputs that need no rounding.

    A logit that is off by delta moves a loss by 2 delta at most, and a probability p by about
    2 p delta. Each product then is rounded once more where it is written in the compute dtype.
    """

    loss: float
    gradients: list[Tensor]


def bounds(head: Head, unit: float) -> Bounds:
    """Bounds for a compute dtype whose roundings are off by `unit` of a number at most."""
    with torch.no_grad():
        z = functional.linear(head.hidden, head.weight, head.bias) * (head.scale or 1)
        delta = 2 * unit * float(z.abs().max())  # rounded, and perhaps once more with the bias
        kept = (head.labels != IGNORED)[:, None]
        labels = functional.one_hot(head.labels.clamp(min=0), len(head.weight))
        mass = (torch.softmax(logits(head), 1) + labels) * kept * (head.scale or 1)
        off = mass * (2.2 * delta + 3 * unit)
        slack = [off @ head.weight.abs(), off.T @ head.hidden.abs(), off.sum(0)]
        sizes = [mass @ head.weight.abs(), mass.T @ head.hidden.abs(), mass.sum(0)]
        each = [s + 3 * unit * size for s, size in zip(slack, sizes, strict=True)]
        loss = float(kept.sum()) * 2 * delta
    return Bounds(loss=loss, gradients=each[: len(head.leaves)])
