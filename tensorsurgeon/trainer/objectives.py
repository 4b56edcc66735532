"""What is learned at each stage: the next token, the answer's tokens, or which answer is better."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from tensorsurgeon.trainer.learner import Batch, Learner
from tensorsurgeon.trainer.preference import document_sums, dpo_loss
from tensorsurgeon.trainer.run_file import Preference


class Objective(Protocol):
    """A loss, summed over what it is a mean of, so that sums of ranks and batches add up.

    Attributes:
        extras: names of the numbers that come after the loss.
    """

    extras: ClassVar[tuple[str, ...]]

    def weight(self, batch: Batch) -> int:
        """How many the loss of a batch is summed over."""

    def __call__(self, learner: Learner, hidden: Tensor, batch: Batch) -> Tensor:
        """(1 + extras,) float32 sums over a batch: the loss, which has the gradient, and extras.

        Args:
            learner: the model.
            hidden: (B, T, d) last hidden states.
            batch: what they are of.
        """


class NextToken:
    """Cross-entropy in nats, over the valid labels; for SFT these are the answers' alone."""

    extras: ClassVar[tuple[str, ...]] = ()

    def weight(self, batch: Batch) -> int:
        """Valid labels."""
        return batch.valid

    def __call__(self, learner: Learner, hidden: Tensor, batch: Batch) -> Tensor:
        """See `Objective`."""
        return torch.stack((learner.loss_sum(hidden, batch),))


class Preferred:
    """The loss of direct preference optimisation (Rafailov et al. 2023), over pairs.

    Args:
        settings: beta and label smoothing.
        references: of each data set (pairs, 2) float32, the reference model's log-probabilities of
            the chosen and the rejected answer of each pair.
    """

    extras: ClassVar[tuple[str, ...]] = ("margin", "accuracy")

    def __init__(self, settings: Preference, references: Sequence[Tensor]) -> None:
        self._settings = settings
        self._reference = torch.cat(list(references))
        sizes = torch.tensor([0, *map(len, references)])
        self._first = sizes.cumsum(0)

    def weight(self, batch: Batch) -> int:
        """Pairs."""
        return len(batch.pairs)

    def __call__(self, learner: Learner, hidden: Tensor, batch: Batch) -> Tensor:
        """See `Objective`."""
        sums = pair_sums(learner, hidden, batch)
        rows = self._first[batch.sources.cpu()] + batch.pairs.cpu()
        reference = self._reference[rows].to(sums.device)
        found = dpo_loss(
            sums[:, 0],
            sums[:, 1],
            reference[:, 0],
            reference[:, 1],
            beta=self._settings.beta,
            label_smoothing=self._settings.label_smoothing,
        )
        return torch.stack((found.loss, found.margin.detach(), found.accuracy.detach()))


def pair_sums(learner: Learner, hidden: Tensor, batch: Batch) -> Tensor:
    """(P, 2) float32 log-probabilities of the chosen and rejected answers of a batch's pairs."""
    log_probs = learner.log_probs(hidden, batch)
    documents = batch.documents.flatten().to(log_probs.device)
    return document_sums(log_probs, documents, 2 * len(batch.pairs)).view(-1, 2)
