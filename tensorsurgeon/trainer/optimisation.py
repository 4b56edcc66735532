"""One step of the optimiser: gradient norms, the guards, and AdamW."""

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tensorsurgeon.errors import TrainingError
from tensorsurgeon.trainer.parallel import Ranks, local_part
from tensorsurgeon.trainer.run_file import Guard, Optimizer


def make_optimizer(groups: Sequence[dict[str, Any]], settings: Optimizer) -> torch.optim.AdamW:
    """AdamW in one kernel for all parameters, on processor and GPU alike."""
    return torch.optim.AdamW(
        list(groups),
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every group its learning rate, its own factor counted in."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["factor"]


@dataclass(frozen=True, kw_only=True)
class Norms:
    """Norms of the gradient.

    Attributes:
        total: of all parameters.
        layers: of each layer's; None where a layer is frozen.
    """

    total: float
    layers: tuple[float | None, ...]


class GradientNorms:
    """Norms of the gradient over all ranks, in one exchange.

    Args:
        named: names and parameters that are trained.
        layer_of: the layer of each name; None outside the layers.
        depth: number of layers.
        ranks: what they are sharded over.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, nn.Parameter]],
        layer_of: Mapping[str, int | None],
        depth: int,
        ranks: Ranks,
    ) -> None:
        self._parameters = [parameter for _, parameter in named]
        self._ranks = ranks
        self._depth = depth
        rows = [layer_of[name] for name, _ in named]
        self._trained = {row for row in rows if row is not None}
        self._rows = torch.tensor(
            [depth if row is None else row for row in rows], device=ranks.device
        )
        mesh = ranks.mesh
        self._copies = mesh.size(0) if mesh.ndim == 2 else 1

    def local(self) -> Tensor:
        """(depth + 1,) float64 squared norms of this rank's slices, the last outside the layers."""
        sums = torch.zeros(self._depth + 1, dtype=torch.float64, device=self._ranks.device)
        held = [
            (i, local_part(p.grad)) for i, p in enumerate(self._parameters) if p.grad is not None
        ]
        if held:
            norms = torch.stack(
                torch._foreach_norm([gradient for _, gradient in held], dtype=torch.float64)
            )
            rows = self._rows
            if len(held) < len(rows):  # a list goes to the device, which is waited for
                rows = rows[[i for i, _ in held]]
            sums.index_add_(0, rows, norms.square())
        return sums / self._copies

    def read(self, sums: Sequence[float]) -> Norms:
        """The norms, from `local` summed over all ranks."""
        return Norms(
            total=math.sqrt(sum(sums)),
            layers=tuple(
                math.sqrt(square) if layer in self._trained else None
                for layer, square in enumerate(sums[: self._depth])
            ),
        )

    def clip(self, total: float, most: float | None) -> None:
        """Scale the gradient down to a norm of `most`."""
        if most is not None and total > most:
            held = [local_part(p.grad) for p in self._parameters if p.grad is not None]
            torch._foreach_mul_(held, most / total)


class StepGuard:
    """Which steps' gradients are not applied.

    Args:
        settings: the limits.
        recent: losses of the last steps, as `recent` gave them at an interruption.
        not_finite: steps in a row that were not finite, likewise.
    """

    def __init__(self, settings: Guard, recent: Sequence[float] = (), not_finite: int = 0) -> None:
        self._settings = settings
        self._recent = deque(recent, maxlen=settings.spike_window)
        self.not_finite = not_finite

    @property
    def recent(self) -> list[float]:
        """Losses of the last steps."""
        return list(self._recent)

    def judge(self, loss: float, norm: float) -> str | None:
        """Why a step is skipped; None where it is to be taken.

        Raises:
            TrainingError: too many in a row were not finite.
        """
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.not_finite += 1
            if self.not_finite >= self._settings.not_finite:
                raise TrainingError(
                    f"loss or gradient was not finite in {self.not_finite} steps in a row",
                    fix="a lower learning rate or a longer warm-up; the same command goes on from "
                    "the last checkpoint",
                )
            return "not finite"
        self.not_finite = 0
        spike = self._is_spike(loss)
        # Counted in all the same, so that a lasting change is soon taken for what it is.
        self._recent.append(loss)
        return "spike" if spike else None

    def _is_spike(self, loss: float) -> bool:
        sigmas = self._settings.spike_sigmas
        if sigmas is None or len(self._recent) < self._settings.spike_window:
            return False
        spread = statistics.stdev(self._recent) if len(self._recent) > 1 else 0.0
        return loss > statistics.fmean(self._recent) + sigmas * max(spread, 1e-3)
