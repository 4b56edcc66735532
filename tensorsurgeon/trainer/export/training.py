"""What is told of a training in the checkpoint that comes out of it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Losses on the held-out data, in nats per token, or per pair where the stage is `dpo`.

    None stands for one that was not measured.

    Attributes:
        before: of the model as it came, before the first step.
        after: of the one that is written.
        base: of the base model on the same data.
    """

    before: float | None = None
    after: float | None = None
    base: float | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training, by what is known of it before its first step.

    Attributes:
        run_file: the text of its run file, as it was read.
        stage: `pretrain`, `sft` or `dpo`.
        steps: of the optimiser.
        tokens: positions of the samples that were seen; padding of whole documents counts.
        seed: of the order of the data.
    """

    run_file: str
    stage: str
    steps: int
    tokens: int
    seed: int

    @property
    def parameters(self) -> dict[str, Any]:
        """What the origin of a trained tensor says."""
        return {"stage": self.stage, "steps": self.steps, "tokens": self.tokens}
