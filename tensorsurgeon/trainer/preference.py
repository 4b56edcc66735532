"""Direct preference optimisation (DPO): learning from pairs of answers, one preferred.

Everything here is of whole documents: the sums of their answers' log-probabilities under the model
that is trained (the policy) and under the one that it began as (the reference). Prompts have no
labels, so their log-probabilities are 0 and add nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class DpoResult:
    """Sums over the pairs of a batch, () each; the caller divides by pairs over all ranks.

    Attributes:
        loss: to be minimised, in nats.
        margin: how much more reward the chosen answers have than the rejected ones, in nats;
            without gradient. The reward is beta * log(policy / reference).
        accuracy: in how many pairs the chosen answer has more; float32, without gradient. A tie is
            none, so it is 0 before training.
    """

    loss: Tensor
    margin: Tensor
    accuracy: Tensor


def document_sums(log_probs: Tensor, documents: Tensor, number: int) -> Tensor:
    """Sum per document; what belongs to a document beyond `number`, as padding, is left out.

    Each document's sum is a reduction of its own, in a fixed order: scattered additions would come
    out in another order at every run on a GPU.

    Args:
        log_probs: (T,) of the tokens.
        documents: (T,) which document each is of.
        number: documents, n.

    Returns:
        (n,) in the dtype of `log_probs`.
    """
    numbers = torch.arange(number, device=documents.device)
    return log_probs.where(documents == numbers[:, None], 0).sum(1)


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> DpoResult:
    """The loss of DPO (Rafailov et al. 2023, eq. 7).

    With h = beta * (log(policy / reference) of the chosen - that of the rejected) it is
    -log(sigmoid(h)). Label smoothing e takes a share e of the preferences for wrong (conservative
    DPO, Mitchell 2023): -(1 - e) * log(sigmoid(h)) - e * log(sigmoid(-h)).

    Args:
        policy_chosen: (P,) summed log-probabilities of the chosen answers, with gradient.
        policy_rejected: (P,) of the rejected ones, with gradient.
        reference_chosen: (P,) under the reference.
        reference_rejected: (P,) under the reference.
        beta: how much the policy is held to the reference, per nat.
        label_smoothing: e, from 0 to below 0.5.
    """
    margins = beta * ((policy_chosen - reference_chosen) - (policy_rejected - reference_rejected))
    losses = -functional.logsigmoid(margins)
    if label_smoothing:
        flipped = -functional.logsigmoid(-margins)
        losses = (1 - label_smoothing) * losses + label_smoothing * flipped
    margins = margins.detach()
    more = (margins > 0).float()
    return DpoResult(loss=losses.sum(), margin=margins.sum(), accuracy=more.sum())
