"""The held-out loss: of the model in training, and of the base model on the same tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tensorsurgeon.trainer.data import IGNORED, Sample
from tensorsurgeon.trainer.learner import Batch, Learner, collate
from tensorsurgeon.trainer.objectives import Objective
from tensorsurgeon.trainer.parallel import Ranks


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A loss on held-out data.

    Attributes:
        loss: mean, in nats per valid token or pair.
        weight: valid tokens, or pairs, it is the mean of.
        extras: the objective's other means, by name.
    """

    loss: float
    weight: int
    extras: dict[str, float]


def evaluate(
    learner: Learner, samples: Sequence[Sample], objective: Objective, ranks: Ranks, micro: int
) -> Measured:
    """The mean loss over samples; every rank takes its share of them.

    Args:
        learner: the model.
        samples: all of them, the same on every rank.
        objective: the loss.
        ranks: who takes part.
        micro: samples computed at a time.
    """
    sums = torch.zeros(2 + len(objective.extras), dtype=torch.float64, device=ranks.device)
    for batch in shares(samples, ranks, micro):
        found = learner.measure(batch.to(ranks.device), objective)
        sums[1:] += found.double()
        sums[0] += objective.weight(batch)
    weight, loss, *extras = ranks.sum(sums).tolist()
    return Measured(
        loss=loss / weight,
        weight=round(weight),
        extras={k: v / weight for k, v in zip(objective.extras, extras, strict=True)},
    )


def shares(samples: Sequence[Sample], ranks: Ranks, micro: int) -> Iterator[Batch]:
    """This rank's share of samples, in batches; as many batches on every rank.

    Gathering the layers takes all ranks, so one with nothing left computes samples that do not
    count; they fill the last batches, too, since what is compiled wants one shape.
    """
    own = list(samples[ranks.rank :: ranks.size])
    rounds = -(-len(samples) // (micro * ranks.size))
    for index in range(rounds):
        chosen = own[index * micro : (index + 1) * micro]
        yield collate(chosen + [_nothing(samples[0])] * (micro - len(chosen)))


def _nothing(sample: Sample) -> Sample:
    labels = np.full_like(sample.labels, IGNORED)
    return replace(sample, labels=labels, pairs=sample.pairs[:0])
