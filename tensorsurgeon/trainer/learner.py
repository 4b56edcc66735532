"""The model as it is trained: tokens in, what the objective makes of the last hidden states out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from tensorsurgeon.checkpoint import Checkpoint
from tensorsurgeon.errors import TrainingError
from tensorsurgeon.trainer.attention import check_isolation, packed_inputs
from tensorsurgeon.trainer.data import IGNORED, Sample
from tensorsurgeon.trainer.losses import linear_cross_entropy, token_log_probs
from tensorsurgeon.trainer.model import LanguageModel
from tensorsurgeon.trainer.parallel import Ranks, prepare_layers, shard
from tensorsurgeon.trainer.run_file import Engine
from tensorsurgeon.trainer.slices import load_weights

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples that are computed together.

    Attributes:
        tokens: (B, T) int64.
        labels: (B, T) int64, `IGNORED` where nothing is learned.
        positions: (B, T) int64, from 0 in each document.
        documents: (B, T) int64, numbered through the batch.
        pairs: (P,) int64, of preferences: which pair documents 2j and 2j + 1 are of.
        sources: (P,) int64, the data set each pair is of.
    """

    tokens: Tensor
    labels: Tensor
    positions: Tensor
    documents: Tensor
    pairs: Tensor
    sources: Tensor

    @property
    def valid(self) -> int:
        """Labels that are learned."""
        return int((self.labels != IGNORED).sum())

    def pinned(self) -> "Batch":
        """The same in memory that a GPU copies from without being waited for."""
        return replace(self, tokens=self.tokens.pin_memory(), positions=self.positions.pin_memory())

    def to(self, device: torch.device) -> "Batch":
        """The same with its tokens on a device.

        The rest stays on the processor: where documents begin and what has a label decide shapes,
        and a GPU would have to be waited for.
        """
        return replace(self, tokens=self.tokens.to(device, non_blocking=True))


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
        sources=torch.cat([torch.full((len(s.pairs),), s.source) for s in samples]),
    )


class Learner(nn.Module):
    """The root of what is sharded: gathers embeddings, last norm and head for its forward pass."""

    def __init__(self, model: LanguageModel, *, compiled: bool) -> None:
        super().__init__()
        self.module = model.module
        self._model = model  # no module itself, so it is not found twice
        config = model.config
        self._softcap = getattr(config, "final_logit_softcapping", None)
        self._scale = _logit_scale(config)
        self._compiled = compiled

    def forward(self, batch: Batch, then: Callable[["Learner", Tensor, Batch], _T]) -> _T:
        """Hidden states of a batch, and what an objective makes of them.

        Args:
            batch: on the model's device.
            then: takes this, (B, T, d) last hidden states, and the batch.
        """
        hidden = self._model.body(**self.inputs(batch)).last_hidden_state
        return then(self, hidden, batch)

    def measure(self, batch: Batch, then: Callable[["Learner", Tensor, Batch], _T]) -> _T:
        """As a call, but nothing is learned from it: no gradients, and all is let go of at once.

        After a forward pass alone, what is outside the layers would stay gathered, and its
        parameters be others than those of the optimiser.
        """
        with torch.no_grad():
            found = self(batch, then)
        sharded: Any = self
        sharded.reshard()
        return cast("_T", found)

    def exchange_between_replicas(self, wanted: bool) -> None:
        """Whether the next backward pass adds up the replicas' gradients, where there are any."""
        sharded: Any = self
        sharded.set_requires_all_reduce(wanted)

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What transformers' models take of a batch."""
        implementation = self._model.config._attn_implementation
        device = batch.tokens.device
        packed = packed_inputs(batch.positions, implementation, device=device)
        return {"input_ids": batch.tokens, **packed, "use_cache": False}

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
            compiled=self._compiled,
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
            compiled=self._compiled,
        )

    def check(self, vocabulary: int, device: torch.device) -> None:
        """Whether what will be learned is what it is taken for, on a few tokens.

        Raises:
            TrainingError: a token sees those after it, or those of another document; or the loss is
                not of the model's own logits, since its class does something unknown to them.
        """
        # These few shapes would only be compiled in vain.
        with torch.compiler.set_stance("force_eager"):
            self._check(vocabulary, device)

    def _check(self, vocabulary: int, device: torch.device) -> None:
        tokens = (torch.arange(16) * 7 % vocabulary).view(2, 8).to(device)
        batch = _plain_batch(tokens, torch.arange(8).repeat(2, 1))
        changed = tokens.clone()
        changed[:, -1] = (changed[:, -1] + 1) % vocabulary
        hidden, ours, theirs = self.measure(batch, _both_losses)
        others = self.measure(replace(batch, tokens=changed), _hidden)
        name = type(self.module).__name__
        if not hidden.isfinite().all():
            raise TrainingError(
                f"{name} computes values that are not finite before any training",
                fix="'tensorsurgeon verify' tells whether its weights are damaged",
            )
        # Experts that are given other numbers of tokens round differently.
        moved = (hidden - others).abs().float().mean((0, 2))
        if not moved[:-1].max() <= 0.25 * moved[-1]:
            raise TrainingError(f"{name} is no causal language model: a token sees those after it")
        if not torch.allclose(ours, theirs, rtol=2e-3):
            raise TrainingError(
                f"{name} does something to its logits that is not known here: its loss is "
                f"{theirs / tokens.numel():.5f}, not {ours / tokens.numel():.5f}"
            )
        check_isolation(
            lambda tokens, positions: self.measure(_plain_batch(tokens, positions.cpu()), _hidden),
            vocabulary=vocabulary,
            device=device,
        )


def _plain_batch(tokens: Tensor, positions: Tensor) -> Batch:
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(
        tokens=tokens,
        labels=tokens.cpu(),
        positions=positions,
        documents=(positions == 0).long().cumsum(-1) - 1,
        pairs=none,
        sources=none,
    )


def _hidden(_: Learner, hidden: Tensor, __: Batch) -> Tensor:
    return hidden


def _both_losses(learner: Learner, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    ours = learner.loss_sum(hidden, batch)
    logits = learner.module(**learner.inputs(batch)).logits.float().flatten(0, 1)
    labels = batch.labels.flatten().to(logits.device)
    theirs = nn.functional.cross_entropy(logits, labels, reduction="sum")
    return hidden, ours, theirs


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
        TrainingError: it is not causal, or its logits are others than ours.
    """
    compiled = prepare_layers(model, engine, ranks.device, first_trained=first_trained)
    learner = Learner(model, compiled=compiled and ranks.device.type == "cuda")
    shard(learner, model.layers, ranks)
    load_weights(model, checkpoint, ranks.device)
    learner.eval()  # dropout would make a resumed run another one; none is used
    learner.check(model.vocabulary, ranks.device)
    return learner
