"""The run file of a training: YAML like a recipe, every mistake told at its line and column."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tensorsurgeon.documents import Findings, LocatedMap, load_document, mark_at
from tensorsurgeon.errors import Problem, RecipeError, TensorSurgeonError
from tensorsurgeon.trainer.counted import counted
from tensorsurgeon.trainer.quantities import Count, Size

_NEEDS = "a run file has 'model', 'folder', 'data', 'steps' or 'tokens', 'batch', 'optimizer'"


def _a_list(raw: Any) -> Any:
    """A path alone stands for a list of one source."""
    return [{"path": raw}] if isinstance(raw, str) else raw


Beta = Annotated[float, Field(ge=0, lt=1)]


class Settings(BaseModel):
    """Base of every part of a run file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TokenSource(Settings):
    """Token shards that `tensorsurgeon train prepare` wrote."""

    path: str = Field(min_length=1, description="their folder, relative to the run file")
    weight: float = Field(default=1.0, gt=0, description="share of the samples, relative to others")


class Data(Settings):
    """What the model learns from."""

    train: Annotated[tuple[TokenSource, ...], BeforeValidator(_a_list)] = Field(
        min_length=1, max_length=32, description="a folder of token shards, or a mixture"
    )
    held_out: str | None = Field(default=None, description="token shards the loss is measured on")
    sequence_length: Count = Field(description="tokens of a sample")
    packing: Literal["auto", "stream", "documents"] = Field(
        default="auto",
        description="cut the stream of documents into samples, or fill samples with whole "
        "documents; by default the former for pretraining only",
    )
    too_long: Literal["error", "truncate", "skip"] = Field(
        default="error", description="what becomes of a document longer than a sample"
    )


class Batch(Settings):
    """How many samples a step learns from."""

    sequences: Count = Field(description="samples of one step, over all ranks")
    micro: Count = Field(default=1, description="samples that one rank takes at a time")


class Optimizer(Settings):
    """AdamW (Loshchilov and Hutter 2019)."""

    learning_rate: float = Field(gt=0, description="at the schedule's height")
    betas: tuple[Beta, Beta] = Field(default=(0.9, 0.95), description="decay of the moments")
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(
        default=0.1, ge=0, description="of matrices; norms and biases have none"
    )
    clip: float | None = Field(default=1.0, gt=0, description="largest norm of the gradient")


class LearningRateSchedule(Settings):
    """How the learning rate changes over the run."""

    kind: Literal["wsd", "cosine", "constant"] = Field(
        default="wsd", description="warm-up, stable, decay; or half a cosine after the warm-up"
    )
    warm_up: int = Field(default=0, ge=0, description="steps of linear warm-up")
    decay: float = Field(default=0.2, ge=0, le=1, description="wsd: share of the steps that decay")
    final: float = Field(default=0.0, ge=0, le=1, description="learning rate at the end, relative")


class Group(Settings):
    """Parameters that are treated alike; the first group that matches one has it."""

    match: str = Field(
        min_length=1,
        description="@new, @copied, @seam, @embeddings, @head, @norms, layers as 'layers 4-11', or "
        "an anchored glob on the tensor's name",
    )
    learning_rate: float = Field(default=1.0, ge=0, description="factor of the learning rate")
    weight_decay: float | None = Field(default=None, ge=0, description="in place of the general")
    frozen: bool = Field(default=False, description="do not train these at all")


class Engine(Settings):
    """How the work is done; nothing here changes what is learned, but for rounding."""

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto")
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        default="auto", description="of the computation; master weights are float32 always"
    )
    replicate: Count = Field(
        default=1, description="groups of ranks that each hold the whole model, sharded (HSDP)"
    )
    activation_checkpointing: Literal["none", "selective", "full"] = Field(
        default="none", description="what is computed again in the backward pass to save memory"
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto", description="torch.compile, layer by layer; auto: on a GPU"
    )
    attention: Literal["auto", "sdpa", "varlen", "flash_attention_2", "flex_attention", "eager"] = (
        Field(default="auto", description="how the attention of packed documents is computed")
    )
    deterministic: bool = Field(
        default=False,
        description="the same bits at every run, also on a GPU, where that costs some speed",
    )
    threads: Count | None = Field(default=None, description="of a processor, for each rank")
    peak_flops: float | None = Field(
        default=None, gt=0, description="the device's stated peak, where it is not known"
    )


class Evaluation(Settings):
    """The held-out loss."""

    every: Count = Field(default=100, description="steps between two")
    sequences: Count = Field(
        default=64, description="samples of the held-out data, spread evenly over it"
    )
    baseline: str | None = Field(
        default=None, description="the base model's folder, measured once on the same tokens"
    )


class Checkpoints(Settings):
    """What a run goes on from after an interruption."""

    every: Count = Field(default=500, description="steps between two")
    keep: Count = Field(default=2, description="how many are kept")


class Guard(Settings):
    """Steps whose gradient is not applied."""

    not_finite: Count = Field(
        default=10, description="steps in a row with a gradient that is not finite, before it ends"
    )
    spike_sigmas: float | None = Field(
        default=8.0, gt=0, description="skip a step whose loss is so far above the recent mean"
    )
    spike_window: Count = Field(default=64, description="recent steps that mean is over")


class Log(Settings):
    """What is written down; metrics.jsonl always is."""

    every: Count = Field(default=1, description="steps between two lines of metrics")
    layers: Count = Field(default=200, description="steps between two looks at layers and seams")
    tensorboard: bool = Field(default=False, description="write events for TensorBoard, too")


class Preference(Settings):
    """Direct preference optimisation (Rafailov et al. 2023)."""

    beta: float = Field(default=0.1, gt=0, description="strength of the pull to the reference")
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    reference: str | None = Field(
        default=None, description="the reference model's folder; by default the model itself"
    )


class Output(Settings):
    """The checkpoint that comes out, a folder as transformers loads it."""

    path: str | None = Field(default=None, description="folder to make, relative to the run file")
    dtype: Literal["float32", "float16", "bfloat16"] | None = Field(
        default=None, description="of every tensor; each keeps the source's by default"
    )
    max_shard_size: Size = Field(default=5_000_000_000, description="most bytes of a shard")


class RunFile(Settings):
    """One training."""

    model: str = Field(min_length=1, description="the checkpoint's folder")
    folder: str = Field(min_length=1, description="of metrics, report and checkpoints")
    stage: Literal["pretrain", "sft", "dpo"] = Field(default="pretrain")
    data: Data
    steps: Count | None = Field(default=None, description="steps of the optimiser")
    tokens: Count | None = Field(default=None, description="tokens to see, in place of steps")
    batch: Batch
    optimizer: Optimizer
    schedule: LearningRateSchedule = LearningRateSchedule()
    preset: Literal["dus", "block-expansion"] | None = Field(
        default=None, description="groups for a kind of surgery, after those of the file"
    )
    groups: tuple[Group, ...] = ()
    engine: Engine = Engine()
    evaluate: Evaluation = Evaluation()
    checkpoint: Checkpoints = Checkpoints()
    guard: Guard = Guard()
    log: Log = Log()
    dpo: Preference = Preference()
    output: Output = Output()
    seed: int = Field(default=0, ge=0, strict=True)

    @property
    def packing(self) -> Literal["stream", "documents"]:
        """How documents fill samples; where that is left open, only texts are cut."""
        if self.data.packing != "auto":
            return self.data.packing
        return "stream" if self.stage == "pretrain" else "documents"


FREE = frozenset(
    {"checkpoint", "log", "engine", "output", "evaluate", "folder", "guard.not_finite"}
    | {"batch.micro", "model", "data.held_out"}
)
"""Settings that may change when a run is resumed, since the steps to come stay the same."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run file as it was read, and where.

    Attributes:
        path: the file.
        text: what is in it.
        settings: what it says.
        document: the same with places.
    """

    path: Path
    text: str
    settings: RunFile
    document: LocatedMap

    @property
    def steps(self) -> int:
        """Steps of the optimiser."""
        if self.settings.steps is not None:
            return self.settings.steps
        assert self.settings.tokens is not None
        return -(-self.settings.tokens // self.tokens_per_step)

    @property
    def tokens_per_step(self) -> int:
        """Positions of one step's samples, over all ranks."""
        return self.settings.batch.sequences * self.settings.data.sequence_length

    @property
    def folder(self) -> Path:
        """Of metrics, report and checkpoints."""
        return self.beside(self.settings.folder)

    def beside(self, path: str) -> Path:
        """A path of the file; relative ones are relative to it."""
        return Path(os.path.normpath(self.path.parent / Path(path).expanduser()))

    def problem(self, path: Sequence[str | int], what: str, fix: str = "") -> Problem:
        """A mistake that shows once model, data and machine are known, at its place in the file."""
        mark = mark_at(self.document, path)
        where = f"{self.path}:{mark.line}:{mark.column}"
        return Problem(where=where, what=f"{'.'.join(map(str, path))}: {what}", fix=fix)

    def error(self, path: Sequence[str | int], what: str, fix: str = "") -> RecipeError:
        """The same as an error of its own."""
        error = RecipeError()
        error.problems = (self.problem(path, what, fix),)
        return error

    @contextmanager
    def naming(self, *path: str | int) -> Iterator[None]:
        """Have an error of what a setting names tell where that stands."""
        try:
            yield
        except TensorSurgeonError as error:
            if not isinstance(error, RecipeError):  # which says it already
                mark, name = mark_at(self.document, path), ".".join(map(str, path))
                error.add_note(f"{name} at {self.path}:{mark.line}:{mark.column}")
            raise


def read_run(path: Path) -> Run:
    """Read a run file.

    Raises:
        RecipeError: everything that is wrong with it, each with line, column and a fix.
    """
    try:
        if path.exists() and not path.is_file():
            raise RecipeError("is not a file", where=str(path))
        return parse_run(path.read_bytes(), path)
    except OSError as error:
        what = "there is no such file" if not path.exists() else f"cannot be read: {error.strerror}"
        raise RecipeError(what, where=str(path)) from None


def parse_run(data: bytes, path: Path) -> Run:
    """Read a run file's bytes; raises as `read_run`."""
    document = load_document(data, str(path), needs=_NEEDS)
    findings = Findings(name=str(path))
    try:
        settings = RunFile.model_validate(document)
    except ValidationError as error:
        findings.report_validation(error, document, RunFile)
        raise RecipeError.of(findings.sorted_problems()) from None
    run = Run(path=path, text=data.decode("utf-8-sig"), settings=settings, document=document)
    _check(run, findings)
    for place, what, fix in _idle(settings):
        findings.report(mark_at(document, place, of_key=True), what, fix)
    if findings.problems:
        raise RecipeError.of(findings.sorted_problems())
    return run


def _check(run: Run, findings: Findings) -> None:
    """What no part of the file can tell by itself."""
    settings, document = run.settings, run.document
    batch, replicas = settings.batch, settings.engine.replicate
    if (settings.steps is None) == (settings.tokens is None):
        given = "both" if settings.steps is not None else "neither"
        findings.report(document.mark, f"'steps' or 'tokens' must be given, and here is {given}")
    elif settings.schedule.warm_up >= run.steps:
        steps = counted(settings.schedule.warm_up, "step")
        what = f"schedule: a warm-up of {steps} fills all {run.steps:,}"
        fix = "lower warm_up, or train for longer"
        findings.report(mark_at(document, ["schedule", "warm_up"]), what, fix)
    if batch.sequences % (batch.micro * replicas):
        sequences, where = counted(batch.sequences, "sequence"), f" on {replicas} replicas"
        what = f"batch: cannot divide {sequences} into micro-batches of {batch.micro}"
        what += where * (replicas > 1)
        fix = "make 'sequences' a multiple of 'micro' times the number of ranks"
        findings.report(mark_at(document, ["batch"]), what, fix)
    if settings.stage == "dpo" and settings.data.packing == "stream":
        fix = "packing: documents"
        findings.report(mark_at(document, ["data", "packing"]), "pairs cannot be cut apart", fix)


def _idle(settings: RunFile) -> Iterator[tuple[list[str], str, str]]:
    """Settings that are given and would do nothing: place, what and fix of each.

    `too_long: error` is none: it holds where documents are cut, since none is too long then.
    """
    stage, kind = settings.stage, settings.schedule.kind
    for name in settings.dpo.model_fields_set if stage != "dpo" else ():
        what = f"dpo: '{name}' does nothing in the stage '{stage}'"
        yield ["dpo", name], what, "remove it, or set stage: dpo"
    heeded = {"decay": ("wsd",), "final": ("wsd", "cosine")}
    for name in settings.schedule.model_fields_set & heeded.keys():
        if kind not in heeded[name]:
            what = f"schedule: '{name}' does nothing in a schedule of the kind '{kind}'"
            fix = f"remove it, or set kind: {' or '.join(heeded[name])}"
            yield ["schedule", name], what, fix
    if settings.data.too_long != "error" and settings.packing == "stream":
        what = "data: 'too_long' does nothing where documents are cut as a stream"
        yield ["data", "too_long"], what, "remove it, or set packing: documents"
    if settings.evaluate.baseline is not None and stage == "dpo":
        what = "evaluate: 'baseline' is not measured in the stage 'dpo'"
        fix = "remove it; dpo: reference names the model to learn against"
        yield ["evaluate", "baseline"], what, fix


def json_schema() -> Mapping[str, Any]:
    """The schema of run files, for editors (JSON Schema 2020-12)."""
    schema = RunFile.model_json_schema()
    train = schema["$defs"]["Data"]["properties"]["train"]
    description = train.pop("description")
    schema["$defs"]["Data"]["properties"]["train"] = {
        "description": description,
        "anyOf": [{"type": "string"}, train],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "TensorSurgeon run file",
    }
