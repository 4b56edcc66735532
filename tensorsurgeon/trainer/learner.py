"""The model as it is trained: tokens in, what the objective makes of the last hidden states out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tensorsurgeon.checkpoint import Checkpoint
from tensorsurgeon.errors import TrainingError
from tensorsurgeon.trainer.attention import packed_inputs
from tensorsurgeon.trainer.data import Sample
from tensorsurgeon.trainer.losses import linear_cross_entropy, token_log_probs
from tensorsurgeon.trainer.model import LanguageModel
from tensorsurgeon.trainer.parallel import Ranks, prepare_layers, shard
from tensorsurgeon.trainer.run_file import Engine
from tensorsurgeon.trainer.slices import load_weights

_T = TypeVar("_T")

IGNORED = -100
"""The label of a position that nothing is learned at."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples that are computed together.

    Attributes:
        tokens: (B, T) int64.
        labels: (B, T) int64, -100 where nothing is learned.
        positions: (B, T) int64, from 0 in each document.
        documents: (B, T) int64, numbered through the batch.
        pairs: (P,) int64, of preferences: which pair documents 2j and 2j + 1 are of.
    """

    tokens: Tensor
    labels: Tensor
    positions: Tensor
    documents: Tensor
    pairs: Tensor

    @property
    def valid(self) -> int:
        """Labels that are learned."""
        return int((self.labels != IGNORED).sum())

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        here = {field.name: getattr(self, field.name) for field in fields(self)}
        return Batch(**{name: t.to(device, non_blocking=True) for name, t in here.items()})


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples as one batch; their documents are numbered on from one to the next."""
    first, documents = 0, []
    for sample in samples:
        documents.append(torch.from_numpy(sample.documents).long() + first)
        # Padding is a document of its own, and no half of a pair.
        first += 2 * len(sample.pairs) if len(sample.pairs) else int(sample.documents.max()) + 1
    return Batch(
        tokens=torch.stack([torch.from_numpy(sample.tokens) for sample in samples]),
        labels=torch.stack([torch.from_numpy(sample.labels) for sample in samples]),
        positions=torch.stack([torch.from_numpy(sample.positions) for sample in samples]),
        documents=torch.stack(documents),
        pairs=torch.cat([torch.from_numpy(sample.pairs) for sample in samples]),
    )


class Learner(nn.Module):
    """The root of what is sharded: gathers embeddings, last norm and head for its forward pass."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.module = model.module
        self._model = model  # no module itself, so it is not found twice
        config = model.config
        self._softcap = getattr(config, "final_logit_softcapping", None)
        self._scale = _logit_scale(config)

    def forward(self, batch: Batch, then: Callable[["Learner", Tensor, Batch], _T]) -> _T:
        """Hidden states of a batch, and what an objective makes of them.

        Args:
            batch: on the model's device.
            then: takes this, (B, T, d) last hidden states, and the batch.
        """
        inputs = packed_inputs(batch.positions, self._model.config._attn_implementation)
        tokens = batch.tokens.view(inputs["position_ids"].shape)
        hidden = self._model.body(tokens, **inputs, use_cache=False).last_hidden_state
        return then(self, hidden.view(*batch.tokens.shape, -1), batch)

    def loss_sum(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy summed over the batch's valid labels, () float32, in nats."""
        head = self._model.head
        return linear_cross_entropy(
            hidden.flatten(0, 1),
            head.weight,
            batch.labels.flatten(),
            bias=head.bias,
            softcap=self._softcap,
            scale=self._scale,
        )

    def log_probs(self, hidden: Tensor, batch: Batch) -> Tensor:
        """(B * T,) float32 log-probabilities of the labels; 0 where there is none."""
        head = self._model.head
        return token_log_probs(
            hidden.flatten(0, 1),
            head.weight,
            batch.labels.flatten(),
            bias=head.bias,
            softcap=self._softcap,
            scale=self._scale,
        )

    def check_head(self, vocabulary: int, device: torch.device) -> None:
        """Whether the loss is of the model's own logits, whatever its class does to them.

        Raises:
            TrainingError: they differ, so that another loss would be learned.
        """
        length = 8
        tokens = (torch.arange(2 * length, device=device) * 7 % vocabulary).view(2, length)
        positions = torch.arange(length, device=device).expand(2, length)
        none = torch.zeros(0, dtype=torch.int64, device=device)
        batch = Batch(
            tokens=tokens, labels=tokens, positions=positions, documents=positions * 0, pairs=none
        )
        with torch.no_grad():
            ours, theirs = self(batch, _both_losses)
        if not torch.allclose(ours, theirs, rtol=2e-3):
            raise TrainingError(
                f"{type(self.module).__name__} does something to its logits that is not known "
                f"here: its loss is {theirs / tokens.numel():.5f}, not {ours / tokens.numel():.5f}"
            )


def _both_losses(learner: Learner, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    ours = learner.loss_sum(hidden, batch)
    inputs = packed_inputs(batch.positions, learner._model.config._attn_implementation)
    tokens = batch.tokens.view(inputs["position_ids"].shape)
    logits = learner.module(tokens, **inputs, use_cache=False).logits.float()
    flat = logits.reshape(-1, logits.shape[-1])
    return ours, nn.functional.cross_entropy(flat, batch.labels.flatten(), reduction="sum")


def _logit_scale(config: Any) -> float | None:
    if getattr(config, "logits_scaling", None) is not None:  # Granite divides
        return 1 / float(config.logits_scaling)
    scale = getattr(config, "logit_scale", None)  # Cohere multiplies
    return None if scale is None else float(scale)


def make_learner(
    model: LanguageModel,
    checkpoint: Checkpoint,
    ranks: Ranks,
    engine: Engine,
    *,
    first_trained: int = 0,
) -> Learner:
    """A model made ready: layers prepared, sharded over the ranks, and its weights read.

    Args:
        model: on the meta device; what is frozen requires no gradients already.
        checkpoint: its weights.
        ranks: whom to share with.
        engine: activation checkpointing and compilation.
        first_trained: layers before this one run without gradients.

    Raises:
        CheckpointError: the weights cannot be read.
        TrainingError: the model's own logits are others than ours.
    """
    prepare_layers(model, engine, ranks.device, first_trained=first_trained)
    learner = Learner(model)
    shard(learner, model.layers, ranks)
    load_weights(model, checkpoint, ranks.device)
    learner.eval()  # dropout would make a resumed run another one; none is used
    learner.check_head(model.vocabulary, ranks.device)
    return learner
