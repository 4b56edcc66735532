"""What a training will take, before it begins: parameters by group, memory, tokens, FLOPs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tensorsurgeon.specs import size_text
from tensorsurgeon.trainer.activations import layer_activations
from tensorsurgeon.trainer.counted import counted
from tensorsurgeon.trainer.flops import flops_per_token
from tensorsurgeon.trainer.losses import rows_per_chunk
from tensorsurgeon.trainer.parallel import is_compiled
from tensorsurgeon.trainer.room import SAVED_BYTES, checkpoints_at_once
from tensorsurgeon.trainer.setup import Setup

_MASTER, _GRADIENT, _MOMENTS = 4, 4, 8
"""Bytes of a parameter: float32 itself, its gradient, and AdamW's two moments."""


@dataclass(frozen=True, kw_only=True)
class GroupForecast:
    """Parameters that are treated alike.

    Attributes:
        match: the selector that chose them.
        tensors: how many.
        elements: of all of them.
        learning_rate: factor of the run's.
        weight_decay: of those that have any; None where they differ.
        frozen: not trained.
    """

    match: str
    tensors: int
    elements: int
    learning_rate: float
    weight_decay: float | None
    frozen: bool


@dataclass(frozen=True, kw_only=True)
class SourceForecast:
    """A data set, and what the run sees of it.

    Attributes:
        name: as the run file has it.
        samples: of one epoch.
        epochs: how often the run sees it.
        cut: documents or pairs that are cut to the length of a sample.
        skipped: those that are left out.
    """

    name: str
    samples: int
    epochs: float
    cut: int
    skipped: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What `--dry-run` tells.

    Attributes:
        parameters: of the model.
        trained: of these, those that are trained.
        groups: the same by group.
        frozen_prefix: layers at the beginning that run without gradients.
        memory: bytes on each rank by what they are for; their sum is the peak.
        staged: bytes of a copy of what is saved, in the processor's memory of each rank; where
            that is the device's, `memory` has it as well.
        checkpoint: bytes of a saved checkpoint, of all ranks together.
        checkpoints: how many lie on the disk at the most.
        tokens: positions that all steps see.
        steps: of the optimiser.
        data: what it learns from.
        flops: of the whole run, forward and backward.
    """

    parameters: int
    trained: int
    groups: tuple[GroupForecast, ...]
    frozen_prefix: int
    memory: Mapping[str, int]
    staged: int
    checkpoint: int
    checkpoints: int
    tokens: int
    steps: int
    data: tuple[SourceForecast, ...]
    flops: float

    @property
    def peak(self) -> int:
        """Bytes on each rank at the most."""
        return sum(self.memory.values())


def make_forecast(setup: Setup, *, ranks: int, precision: torch.dtype, device: str) -> Forecast:
    """Work out what a training takes.

    Args:
        setup: the training, before its model has weights.
        ranks: how many share it.
        precision: of the computation.
        device: `cpu` or `cuda`.
    """
    run = setup.run
    tokens = run.steps * run.tokens_per_step
    return Forecast(
        parameters=setup.elements,
        trained=setup.trained_elements,
        groups=_groups(setup),
        frozen_prefix=setup.first_trained,
        memory=_memory(setup, ranks=ranks, precision=precision, device=device),
        staged=_staged(setup, ranks),
        checkpoint=SAVED_BYTES * setup.trained_elements,
        checkpoints=checkpoints_at_once(setup),
        tokens=tokens,
        steps=run.steps,
        data=sources_forecast(setup),
        flops=token_flops(setup) * tokens,
    )


def sources_forecast(setup: Setup) -> tuple[SourceForecast, ...]:
    """What the run sees of each data set."""
    run, data = setup.run, setup.data
    epochs = data.epochs(run.steps * run.settings.batch.sequences)
    return tuple(
        SourceForecast(
            name=source.name,
            samples=data.samples_per_epoch(source.name),
            epochs=epochs[source.name],
            cut=data.left_out[source.name].cut,
            skipped=data.left_out[source.name].skipped,
        )
        for source in data.sources
    )


def source_text(source: SourceForecast) -> str:
    """A data set for people."""
    left = [f"{counted(source.cut, 'document')} cut"] * (source.cut > 0)
    left += [f"{source.skipped:,} left out"] * (source.skipped > 0)
    told = f"{source.name}: {counted(source.samples, 'sample')}, seen {source.epochs:,.3g} times"
    return ", ".join((told, *left))


_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
"""What configs call the number of a layer's experts."""


def token_flops(setup: Setup) -> float:
    """FLOPs of a token, forward and backward."""
    config = setup.model.config
    experts = [getattr(config, name, None) for name in _EXPERTS]
    every = next((count for count in experts if count), 1)
    return flops_per_token(
        setup.parameters,
        active_experts=(getattr(config, "num_experts_per_tok", None) or every) / every,
        layers=len(setup.layer_map),
        width=int(setup.model.config.hidden_size),
        sequence_length=setup.run.settings.data.sequence_length,
    )


def _groups(setup: Setup) -> tuple[GroupForecast, ...]:
    together: dict[str, list[Any]] = {}
    for parameter in setup.parameters:
        together.setdefault(setup.treatments[parameter.name].group, []).append(parameter)
    found = []
    for match, members in together.items():
        treatments = [setup.treatments[member.name] for member in members]
        decays = {t.weight_decay for t, p in zip(treatments, members, strict=True) if p.decays}
        found.append(
            GroupForecast(
                match=match,
                tensors=len(members),
                elements=sum(member.elements for member in members),
                learning_rate=treatments[0].learning_rate,
                weight_decay=decays.pop() if len(decays) == 1 else None,
                frozen=treatments[0].frozen,
            )
        )
    return tuple(found)


def _memory(setup: Setup, *, ranks: int, precision: torch.dtype, device: str) -> dict[str, int]:
    """Bytes on each rank when most are taken: within the backward pass, where the loss is made."""
    run = setup.run
    shards = max(ranks // run.settings.engine.replicate, 1)
    compute = precision.itemsize
    tokens = run.settings.batch.micro * run.settings.data.sequence_length
    by_layer = [0] * len(setup.layer_map)
    outside = 0
    for parameter in setup.parameters:
        if parameter.layer is None:
            outside += parameter.elements
        else:
            by_layer[parameter.layer] += parameter.elements
    width = int(setup.model.config.hidden_size)
    vocabulary = setup.model.vocabulary
    trained = setup.trained_elements
    logits = min(rows_per_chunk(vocabulary, torch.device(device)), tokens) * vocabulary
    head_trained = any(
        "head" in p.roles and not setup.treatments[p.name].frozen for p in setup.parameters
    )
    return {
        "master weights": _MASTER * setup.elements // shards,
        "gradients": _GRADIENT * trained // shards,
        "optimizer": _MOMENTS * trained // shards,
        # The root's stay from its forward to its backward pass; of the layers, one works while
        # another is fetched.
        "gathered weights": compute * (outside + 2 * max(by_layer)),
        # As a layer's come out of its backward pass, and in float32 as they are exchanged.
        "gathered gradients": (compute + _GRADIENT) * max(by_layer) if trained else 0,
        # Around the layers, the embeddings and the loss hold three hidden states.
        "activations": _activations(setup, tokens, precision, device)
        + 3 * tokens * width * compute,
        "loss": logits * (2 * 4 + compute) + head_trained * vocabulary * width * (4 + compute),
        # From the first save on; beside a GPU it is in the host's memory.
        **({"copy to save": _staged(setup, ranks)} if device == "cpu" else {}),
    }


def _staged(setup: Setup, ranks: int) -> int:
    shards = max(ranks // setup.run.settings.engine.replicate, 1)
    return SAVED_BYTES * setup.trained_elements // shards


def _activations(setup: Setup, tokens: int, precision: torch.dtype, device: str) -> int:
    """Bytes that all layers keep for the backward pass, and what one of them makes again there."""
    engine = setup.run.settings.engine
    layers = layer_activations(
        setup.model,
        tokens=tokens,
        precision=precision,
        recomputation=engine.activation_checkpointing,
        compiled=is_compiled(engine, device),
    )
    return sum(layer.kept for layer in layers) + max(layer.again for layer in layers)


def forecast_text(forecast: Forecast, *, ranks: int, device: str, precision: str) -> str:
    """The forecast for people."""
    lines = ["parameters by group", ""]
    width = max(len(group.match) for group in forecast.groups)
    for group in forecast.groups:
        decay = "mixed" if group.weight_decay is None else f"{group.weight_decay:g}"
        how = "frozen" if group.frozen else f"learning rate x{group.learning_rate:g}, decay {decay}"
        lines.append(
            f"  {group.match:{width}}  {group.elements:>15,}  {group.tensors:>5} tensors  {how}"
        )
    lines.append(
        f"  {'all':{width}}  {forecast.parameters:>15,}  of them trained {forecast.trained:,}"
    )
    if forecast.frozen_prefix:
        lines.append(f"  layers 0-{forecast.frozen_prefix - 1} run without gradients")
    lines += ["", f"memory on each of {ranks} rank{'s' * (ranks > 1)} ({device}, {precision})", ""]
    lines += [f"  {name:18}  {size_text(nbytes):>8}" for name, nbytes in forecast.memory.items()]
    lines.append(f"  {'peak':18}  {size_text(forecast.peak):>8}")
    if device != "cpu":
        lines += ["", f"memory of the host, to save: {size_text(forecast.staged)} a rank"]
    disk = f"{forecast.checkpoints} x {size_text(forecast.checkpoint)}"
    lines += ["", f"disk, of checkpoints: {disk}"]
    lines += ["", "data", "", *(f"  {source_text(source)}" for source in forecast.data)]
    lines += [
        "",
        f"{forecast.steps:,} steps, {forecast.tokens:,} tokens, {forecast.flops:.3g} FLOPs",
    ]
    return "\n".join(lines)
