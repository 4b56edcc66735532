"""README.md of a trained checkpoint: what was trained, on how much, and what came of it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tensorsurgeon import __version__
from tensorsurgeon.checkpoint import License, license_of
from tensorsurgeon.documents.markdown import (
    code,
    fence,
    front_matter,
    heading,
    is_repo_name,
    repo_link,
)
from tensorsurgeon.specs import TORCH_NAMES
from tensorsurgeon.trainer.export.plan import Export
from tensorsurgeon.trainer.export.sidecars import LAYER_MAP_NAME, RECIPE_NAME
from tensorsurgeon.trainer.export.training import Losses
from tensorsurgeon.trainer.stages import STAGES

_TAGS = {"pretrain": "continued-pretraining"}

_RUN_FILE_LIMIT = 20_000
"""Most characters of a run file that stands in the card as well as in the manifest."""


def card_text(
    export: Export, run_file: str, losses: Losses, *, title: str, beside: Sequence[str]
) -> str:
    """The card's Markdown, front matter first.

    Args:
        export: what is written.
        run_file: the run file as it may be shown.
        losses: what was measured.
        title: what to call the result.
        beside: names of the files that go along.
    """
    parts = [
        front_matter(_entries(export, license_of(export.checkpoint.path))),
        f"# {heading(title)}",
        _summary(export),
        *_picture(beside),
        *_losses(export.training.stage, losses),
        "No benchmark was run: how well it does at any task is not known from this.",
        *_surgery(export, beside),
        "## Run file",
        *([fence(run_file, "yaml")] if len(run_file) <= _RUN_FILE_LIMIT else _elsewhere()),
        "## Use",
        fence(_loading(beside), "python"),
        "`tensorsurgeon.json` has a SHA-256 of every tensor and of every other file but this one.\n"
        "`tensorsurgeon verify .` holds the files against it, and\n"
        "`tensorsurgeon explain . TENSOR` tells what a tensor was before it was trained.",
    ]
    return "\n\n".join(parts) + "\n"


def _entries(export: Export, found: License | None) -> Mapping[str, str | Sequence[str]]:
    entries: dict[str, str | Sequence[str]] = {"library_name": "transformers"}
    repos = [entry.get("repo") for entry in export.sources.values()]
    if bases := [repo for repo in dict.fromkeys(repos) if is_repo_name(repo)]:
        entries |= {"base_model": bases, "base_model_relation": "finetune"}
    if found is not None:
        entries["license"] = found.ids[0] if len(found.ids) == 1 else found.ids
        entries |= {"license_name": found.name} if found.name else {}
        link = found.link if found.link.startswith(("https://", "http://")) else ""
        entries |= {"license_link": link} if link else {}
    stage = export.training.stage
    return entries | {"tags": ("tensorsurgeon", _TAGS.get(stage, stage))}


def _summary(export: Export) -> str:
    training, family = export.training, export.config.get("model_type")
    kind = f"{code(family)} model" if isinstance(family, str) and family else "model"
    elements = sum(tensor.spec.elements for tensor in export.tensors)
    seen = f"{training.tokens:,} tokens"
    if training.stage == "dpo":
        seen = f"pairs of answers, {seen} with their padding"
    stage = STAGES.get(training.stage, code(training.stage))
    return (
        f"A {kind} with {export.depth} layer{'s' * (export.depth != 1)} and {elements:,} "
        f"parameters in {_dtypes(export)}.\n{stage} of "
        f"{code(str(export.source['folder']))} for {training.steps:,} steps on {seen}, "
        f"with TensorSurgeon {__version__}."
    )


def _dtypes(export: Export) -> str:
    """The dtypes of its parameters, by torch's names, most of them first."""
    names = {dtype: name for name, dtype in TORCH_NAMES.items()}
    counts: Counter[str] = Counter()
    for tensor in export.tensors:
        dtype = tensor.spec.dtype
        counts[names.get(dtype, dtype.value)] += tensor.spec.elements
    return " and ".join(name for name, _ in counts.most_common(3))


def _picture(beside: Sequence[str]) -> Iterator[str]:
    if LAYER_MAP_NAME in beside:
        yield f"![Where each layer came from]({LAYER_MAP_NAME})"


def _losses(stage: str, losses: Losses) -> Iterator[str]:
    rows = (
        ("before the training", losses.before),
        ("after it", losses.after),
        ("the base model", losses.base),
    )
    if known := [(name, loss) for name, loss in rows if loss is not None]:
        if stage == "dpo":
            yield "Loss on pairs that were held out, all the same ones, in nats per pair:"
        else:
            yield "Loss on tokens that were held out, all the same ones, in nats per token:"
        lines = ["| | loss |", "| --- | --- |"]
        yield "\n".join(lines + [f"| {name} | {loss:.4f} |" for name, loss in known])


def _surgery(export: Export, beside: Sequence[str]) -> Iterator[str]:
    """What it was made from before it was trained."""
    surgery = export.surgery
    if surgery is None:
        return
    yield "## Made from"
    lines = ["| name | model |", "| --- | --- |"]
    lines += [f"| {code(name)} | {_place(entry)} |" for name, entry in surgery.sources.items()]
    yield "\n".join(lines)
    seams = [str(at) for at, layer in enumerate(surgery.layer_map) if layer.get("seam") is True]
    new = sum(layer.get("new") is True for layer in surgery.layer_map)
    told = [
        f"Layers that got another input than in their source: {', '.join(seams)}." if seams else "",
        f"Layers that were new, without effect at first: {new}." if new else "",
        f"The recipe of the surgery is in [{RECIPE_NAME}]({RECIPE_NAME})."
        if RECIPE_NAME in beside
        else "",
    ]
    if any(told):
        yield "\n".join(filter(None, told))


def _place(entry: Mapping[str, Any]) -> str:
    if isinstance(repo := entry.get("repo"), str):
        return repo_link(repo, entry.get("commit"))
    return f"the folder {code(str(entry.get('folder', '')))}"


def _elsewhere() -> list[str]:
    return ["It is in `tensorsurgeon.json`, under `recipe`."]


def _loading(beside: Sequence[str]) -> str:
    """Lines of Python that load the result."""
    has_tokenizer = any(name.startswith("tokenizer") for name in beside)
    lines = [
        "from transformers import AutoModelForCausalLM" + ", AutoTokenizer" * has_tokenizer,
        "",
        'name = "."  # this folder, or the repository it lies in',
        'model = AutoModelForCausalLM.from_pretrained(name, dtype="auto")',
    ]
    if has_tokenizer:
        lines.append("tokenizer = AutoTokenizer.from_pretrained(name)")
    return "\n".join(lines)
