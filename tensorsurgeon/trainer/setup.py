"""Everything that is known of a training before its first step, and every mistake in it found."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tensorsurgeon.checkpoint import Checkpoint, open_checkpoint
from tensorsurgeon.errors import DataError, TrainingError
from tensorsurgeon.trainer.attention import check_packable, choose_attention
from tensorsurgeon.trainer.counted import counted
from tensorsurgeon.trainer.data import (
    Dataset,
    HeldOut,
    Sample,
    Source,
    TokenShards,
    open_tokens,
    tokenizer_digest,
)
from tensorsurgeon.trainer.groups import Parameter, Treatment, assign, first_trained
from tensorsurgeon.trainer.layer_map import LayerOfMap, names_in_surgery, read_layer_map
from tensorsurgeon.trainer.model import LanguageModel, build_model, read_model_config
from tensorsurgeon.trainer.parallel import choose_precision
from tensorsurgeon.trainer.run_file import Engine, Run


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A training that can begin.

    Attributes:
        run: its run file.
        checkpoint: what is trained.
        model: the same without weights; what is frozen requires no gradients.
        layer_map: where each of its layers came from.
        parameters: all of them, as the groups' selectors see them.
        treatments: how each is trained, by name.
        data: what is learned from.
        held_out: what the loss is measured on; None where nothing is held out.
        baseline: the base model, whose loss is measured on the same; None without one.
        base_names: what the surgery calls it; nothing where none of the layers are from it.
        reference: what preferences are learned against; None where that is the model itself.
    """

    run: Run
    checkpoint: Checkpoint
    model: LanguageModel
    layer_map: tuple[LayerOfMap, ...]
    parameters: tuple[Parameter, ...]
    treatments: Mapping[str, Treatment]
    data: Dataset
    held_out: "HeldOutData | None"
    baseline: Checkpoint | None
    base_names: frozenset[str]
    reference: Checkpoint | None

    @cached_property
    def first_trained(self) -> int:
        """The first layer that needs gradients."""
        return first_trained(self.parameters, self.treatments, len(self.layer_map))

    @property
    def elements(self) -> int:
        """Parameters of the model."""
        return sum(parameter.elements for parameter in self.parameters)

    @property
    def trained_elements(self) -> int:
        """Parameters that are trained."""
        return sum(p.elements for p in self.parameters if not self.treatments[p.name].frozen)


def set_up(run: Run, *, device: torch.device, ranks: int) -> Setup:
    """Open the checkpoint and the data, build the model, and find out whether it all fits.

    Args:
        run: the run file.
        device: what will compute.
        ranks: how many there will be.

    Raises:
        RecipeError: what the run file asks for does not fit model, data or ranks.
        TensorSurgeonError: checkpoint or data cannot be read, or do not fit each other.
    """
    settings = run.settings
    check_batch(run, ranks)
    _check_folder(run)
    with run.naming("model"):
        checkpoint = open_checkpoint(run.beside(settings.model))
        model = open_model(checkpoint, settings.engine, device)
    most = getattr(model.config, "max_position_embeddings", None)
    length = settings.data.sequence_length
    if isinstance(most, int) and length > most:
        what = f"{length} is longer than the model allows, which is {most}"
        raise run.error(["data", "sequence_length"], what, f"at most {most}")
    layer_map = read_layer_map(checkpoint, len(model.layers))
    parameters = describe(model)
    treatments = assign(run, parameters, layer_map)
    for name, parameter in model.parameters():
        parameter.requires_grad_(not treatments[name].frozen)
    data, held_out = open_data(run, checkpoint.path, model.vocabulary)
    baseline = _open_baseline(run, checkpoint, model, layer_map, held_out)
    return Setup(
        run=run,
        checkpoint=checkpoint,
        model=model,
        layer_map=layer_map,
        parameters=parameters,
        treatments=treatments,
        data=data,
        held_out=held_out,
        baseline=baseline,
        base_names=names_in_surgery(baseline, checkpoint) if baseline else frozenset(),
        reference=_open_reference(run, checkpoint, data, held_out),
    )


def _check_folder(run: Run) -> None:
    """Whether metrics and checkpoints would get among files that are read.

    Raises:
        RecipeError: they would.
    """
    settings = run.settings
    data = [source.path for source in settings.data.train] + [settings.data.held_out]
    others = [settings.model, settings.evaluate.baseline, settings.dpo.reference, *data]
    for path in filter(None, others):
        if run.folder.resolve().is_relative_to(run.beside(path).resolve()):
            fix = "name a folder of the run's own"
            raise run.error(["folder"], f"{run.folder} is, or lies in, {path}, which is read", fix)


def _open_baseline(
    run: Run,
    checkpoint: Checkpoint,
    model: LanguageModel,
    layer_map: Sequence[LayerOfMap],
    held_out: "HeldOutData | None",
) -> Checkpoint | None:
    """The base model, which is told from the run's own by its loss, and at the seams."""
    path, place = run.settings.evaluate.baseline, ["evaluate", "baseline"]
    if path is None:
        return None
    if held_out is None:
        what = "is measured on held-out tokens, and there are none"
        raise run.error(place, what, "name some: data: held_out")
    other, config = _open_other(run, checkpoint, path, place, [held_out.shards])
    compared = any(entry.seam for entry in layer_map)
    if compared and config.hidden_size != model.config.hidden_size:
        what = f"{path} has a width of {config.hidden_size}, the model {model.config.hidden_size}"
        raise run.error(place, what, "name the model that the layers are from")
    return other


def _open_reference(
    run: Run, checkpoint: Checkpoint, data: Dataset, held_out: "HeldOutData | None"
) -> Checkpoint | None:
    """What preferences are learned against, where it is another model."""
    path = run.settings.dpo.reference
    if path is None or run.settings.stage != "dpo":
        return None
    read = [source.shards for source in data.sources] + ([held_out.shards] if held_out else [])
    return _open_other(run, checkpoint, path, ["dpo", "reference"], read)[0]


def _open_other(
    run: Run, checkpoint: Checkpoint, path: str, place: Sequence[str], read: Sequence[TokenShards]
) -> tuple[Checkpoint, Any]:
    """Another model that is to read the same tokens, and its config.

    Args:
        run: the run file.
        checkpoint: what is trained.
        path: of the other, as the run file has it.
        place: where that is.
        read: what it is to read.

    Raises:
        CheckpointError: it cannot be read.
        RecipeError: the tokens would mean something else to it.
    """
    with run.naming(*place):
        other = open_checkpoint(run.beside(path))
        config = read_model_config(other.path).get_text_config()
    if tokenizer_digest(other.path) != tokenizer_digest(checkpoint.path):
        raise run.error(place, f"{path} has another tokenizer than the model")
    largest = max(shards.index.largest_token for shards in read)
    if config.vocab_size <= largest:
        what = f"{path} has {config.vocab_size} rows of embeddings, and the data token {largest}"
        raise run.error(place, what)
    return other, config


def check_batch(run: Run, ranks: int) -> None:
    """Whether the batch divides into the ranks' micro-batches.

    Raises:
        RecipeError: it does not.
    """
    batch, replicas = run.settings.batch, run.settings.engine.replicate
    if ranks % replicas:
        what = f"cannot divide {counted(ranks, 'rank')} into {replicas} replicas"
        raise run.error(["engine", "replicate"], what)
    if batch.sequences % (batch.micro * ranks):
        raise run.error(
            ["batch"],
            f"cannot divide {counted(batch.sequences, 'sequence')} into micro-batches of "
            f"{batch.micro} on {counted(ranks, 'rank')}",
            f"make 'sequences' a multiple of {batch.micro * ranks}",
        )


def open_model(checkpoint: Checkpoint, engine: Engine, device: torch.device) -> LanguageModel:
    """A checkpoint's model without weights, with an attention that packed documents need.

    Raises:
        ArchitectureError, MissingTensorError, TrainingError: it cannot be trained here.
    """
    config = read_model_config(checkpoint.path)
    try:
        check_packable(config)
    except TrainingError as error:
        where = str(checkpoint.path / "config.json")
        raise TrainingError.of(replace(p, where=p.where or where) for p in error.problems) from None
    dtype = choose_precision(engine.precision, device)
    attention = choose_attention(config, device, engine.attention, dtype=dtype)
    return build_model(checkpoint, attention=attention)


def describe(model: LanguageModel) -> tuple[Parameter, ...]:
    """A model's parameters as selectors see them."""
    embeddings, head = {id(p) for p in model.embeddings.parameters()}, id(model.head.weight)
    found = []
    for name, parameter in model.parameters():
        roles = {"embeddings"} if id(parameter) in embeddings else set()
        roles |= {"head"} if id(parameter) == head else set()
        found.append(
            Parameter(
                name=name,
                elements=parameter.numel(),
                dimensions=parameter.ndim,
                layer=model.layer_of(name),
                roles=frozenset(roles),
            )
        )
    return tuple(found)


def open_data(run: Run, model: Path, vocabulary: int) -> "tuple[Dataset, HeldOutData | None]":
    """The token shards a run names.

    Args:
        run: the run file.
        model: the checkpoint's folder, for its tokenizer.
        vocabulary: tokens the model knows.

    Raises:
        DataError: they cannot be read, or are of another tokenizer.
        RecipeError: they are of another stage's form.
    """
    settings = run.settings.data
    digest = tokenizer_digest(model)
    kind = {"pretrain": "text", "sft": "sft", "dpo": "preference"}[run.settings.stage]

    def opened(path: str, place: Sequence[str | int]) -> TokenShards:
        with run.naming(*place):
            shards = open_tokens(run.beside(path), tokenizer_digest=digest, vocabulary=vocabulary)
        if shards.index.kind != kind:
            fix = f"prepare them with --format for the stage '{run.settings.stage}'"
            raise run.error(place, f"{path} holds {shards.index.kind}, not {kind}", fix)
        return shards

    sources = [
        Source(
            name=source.path,
            shards=opened(source.path, ["data", "train", index, "path"]),
            weight=source.weight,
        )
        for index, source in enumerate(settings.train)
    ]
    data = Dataset(
        sources,
        sequence_length=settings.sequence_length,
        seed=run.settings.seed,
        packing=run.settings.packing,
        too_long=settings.too_long,
    )
    if settings.held_out is None:
        return data, None
    held_out = opened(settings.held_out, ["data", "held_out"])
    return data, HeldOutData.read(run, held_out)


@dataclass(frozen=True, kw_only=True)
class HeldOutData:
    """What the loss is measured on.

    Attributes:
        shards: where it is.
        samples: of them as many as are asked for, spread evenly.
    """

    shards: TokenShards
    samples: tuple[Sample, ...]

    @property
    def identity(self) -> str:
        """What tells it from other data, and from more or less of the same, in a run's samples."""
        parts = f"{self.shards.identity} {len(self.samples)}"
        return hashlib.sha256(parts.encode()).hexdigest()

    @classmethod
    def read(cls, run: Run, shards: TokenShards) -> "HeldOutData":
        """Samples of held-out shards; documents of one kind often lie together."""
        every = all_samples(run, shards)
        count = min(run.settings.evaluate.sequences, len(every))
        chosen = [index * len(every) // count for index in range(count)]
        samples = tuple(map(every.sample, chosen))
        if not any((sample.labels >= 0).any() for sample in samples):
            what = f"has nothing to predict in the {counted(count, 'sample')} to be measured"
            fix = "raise evaluate: sequences, or prepare more tokens"
            raise DataError(what, where=str(shards.folder), fix=fix)
        return cls(shards=shards, samples=samples)


def all_samples(run: Run, shards: TokenShards) -> HeldOut:
    """Every document of some shards once, in its own order, in samples as the run has them."""
    return HeldOut(
        shards,
        sequence_length=run.settings.data.sequence_length,
        packing=run.settings.packing,
        too_long=run.settings.data.too_long,
    )
