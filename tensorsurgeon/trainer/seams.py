"""The seams of a grown model: how unlike its accustomed input a layer there gets."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tensorsurgeon.trainer.data import IGNORED
from tensorsurgeon.trainer.layer_map import LayerOfMap
from tensorsurgeon.trainer.learner import Batch, Learner
from tensorsurgeon.trainer.parallel import Ranks


@dataclass(frozen=True, kw_only=True)
class Seam:
    """A layer that gets another input than it was trained with.

    Attributes:
        layer: its index.
        original: the source's name and the layer's index there.
        twin: the layer of this model that gets, before training, just what the original gets in
            its own model; None where there is none.
    """

    layer: int
    original: tuple[str, int]
    twin: int | None


def find_seams(layer_map: Sequence[LayerOfMap]) -> tuple[Seam, ...]:
    """The seams of a model whose layers there are of one source layer each.

    The first layers of a grown model are often those of the source, in order; up to the first other
    one, each gets what it gets there.
    """
    intact = 0
    for index, entry in enumerate(layer_map):
        if entry.new or entry.sources != ((layer_map[0].sources[0][0], index),):
            break
        intact += 1
    found = []
    for index, entry in enumerate(layer_map):
        if entry.seam and len(entry.sources) == 1:
            source, layer = entry.sources[0]
            has_twin = layer < intact and source == layer_map[0].sources[0][0]
            twin = layer if has_twin else None
            found.append(Seam(layer=index, original=(source, layer), twin=twin))
    return tuple(found)


def measurable(seams: Sequence[Seam], base_names: Collection[str]) -> tuple[Seam, ...]:
    """Those seams of which a model at hand tells what the layer is accustomed to.

    Args:
        seams: of the model that is trained.
        base_names: what the surgery calls the base model; none where there is none, or where that
            is no model of the surgery's.
    """
    return tuple(s for s in seams if s.twin is not None or s.original[0] in base_names)


def left_out(
    layer_map: Sequence[LayerOfMap], seams: Sequence[Seam], measured: Sequence[Seam]
) -> Iterator[str]:
    """What to tell of the seams that are not measured, and what would help.

    Args:
        layer_map: of the model that is trained.
        seams: of layers of one source layer each.
        measured: those of them that are measured.
    """
    missing: dict[str, list[int]] = {}
    for seam in seams:
        if seam not in measured:
            missing.setdefault(seam.original[0], []).append(seam.layer)
    for source, layers in missing.items():
        yield (
            f"the report leaves out {_named(layers)}: only the model '{source}' of the recipe "
            "tells what is usual there; evaluate: baseline can name its folder"
        )
    if merged := [i for i, entry in enumerate(layer_map) if entry.seam and len(entry.sources) > 1]:
        yield f"the report leaves out {_named(merged)}: no model tells what is usual after a merge"


def _named(layers: Sequence[int]) -> str:
    numbers = ", ".join(map(str, layers))
    return f"the seam{'s' * (len(layers) > 1)} at layer{'s' * (len(layers) > 1)} {numbers}"


class SeamProbe:
    """Compares the inputs at the seams with what they are accustomed to, on the same tokens.

    Args:
        seams: those to compare: each has a twin, or its original is in the base model.
        batches: this rank's tokens, on the device; as many batches on every rank, and in one of
            them a label.
    """

    def __init__(self, seams: Sequence[Seam], batches: Sequence[Batch]) -> None:
        self._seams = tuple(seams)
        self._batches = tuple(batches)
        self._accustomed: dict[int, Tensor] = {}

    @property
    def needs_base(self) -> bool:
        """Whether only the base model can tell what a layer is accustomed to."""
        return any(seam.twin is None for seam in self._seams)

    def remember(self, learner: Learner, layers: nn.ModuleList) -> None:
        """Keep what the layers are accustomed to, from the model before its training."""
        twins = {seam.layer: seam.twin for seam in self._seams if seam.twin is not None}
        self._keep(learner, layers, twins)

    def remember_base(self, learner: Learner, layers: nn.ModuleList) -> None:
        """The same from the base model, for seams that have no twin."""
        missing = {seam.layer: seam.original[1] for seam in self._seams if seam.twin is None}
        self._keep(learner, layers, missing)

    def _keep(self, learner: Learner, layers: nn.ModuleList, wanted: Mapping[int, int]) -> None:
        if not wanted:
            return
        inputs = self._inputs(learner, layers, set(wanted.values()))
        self._accustomed |= {seam: inputs[layer].cpu() for seam, layer in wanted.items()}

    def _inputs(
        self, learner: Learner, layers: nn.ModuleList, wanted: set[int]
    ) -> dict[int, Tensor]:
        """(N, d) what goes into some layers at all tokens that have a successor to predict."""
        found: dict[int, list[Tensor]] = {layer: [] for layer in wanted}
        for batch in self._batches:
            real = (batch.labels != IGNORED).flatten()
            for layer, hidden in inputs_of(learner, layers, wanted, batch).items():
                found[layer].append(hidden.flatten(0, 1)[real.to(hidden.device)].float())
        return {layer: torch.cat(parts) for layer, parts in found.items()}

    def measure(
        self, learner: Learner, layers: nn.ModuleList, ranks: Ranks
    ) -> list[dict[str, Any]]:
        """Of each seam the mean cosine and the ratio of the mean norms, over all ranks' tokens."""
        inputs = self._inputs(learner, layers, {seam.layer for seam in self._seams})
        sums = torch.zeros(len(self._seams), 4, dtype=torch.float64, device=ranks.device)
        for row, seam in zip(sums, self._seams, strict=True):
            was, now = self._accustomed[seam.layer].to(ranks.device), inputs[seam.layer]
            cosine = nn.functional.cosine_similarity(now, was, dim=-1)
            row[0], row[1], row[2] = cosine.sum(), now.norm(dim=-1).sum(), was.norm(dim=-1).sum()
            row[3] = len(now)
        ranks.sum(sums)
        return [
            {
                "layer": seam.layer,
                "original": list(seam.original),
                "cosine": row[0] / row[3],
                "norm_ratio": row[1] / row[2],
            }
            for seam, row in zip(self._seams, sums.tolist(), strict=True)
        ]


def inputs_of(
    learner: Learner, layers: nn.ModuleList, wanted: set[int], batch: Batch
) -> dict[int, Tensor]:
    """(B, T, d) hidden states that go into some layers; every rank takes part.

    Args:
        learner: the model.
        layers: its layers.
        wanted: indices of layers.
        batch: on the device.
    """
    found: dict[int, Tensor] = {}
    with ExitStack() as stack:
        for index in wanted:

            def note(_: nn.Module, args: Any, kwargs: Any, at: int = index) -> None:
                hidden = args[0] if args else kwargs["hidden_states"]
                found[at] = hidden.detach().view(*batch.tokens.shape, -1)

            hook = layers[index].register_forward_pre_hook(note, with_kwargs=True)
            stack.callback(hook.remove)
        stack.enter_context(torch.compiler.set_stance("force_eager"))  # a shape of its own
        learner.measure(batch, lambda _, hidden, __: hidden.sum())
    return found
