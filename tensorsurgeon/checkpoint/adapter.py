"""A LoRA adapter's folder: its config, and its tensors by the modules they change.

PEFT names a tensor `base_model.model.<module>.<kind>`. Low-rank factors, magnitudes and biases of
factors are told by their kind; every other one is a whole tensor, which takes the place of the
model's, as of a module that was trained in full.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tensorsurgeon.checkpoint.adapter_config import (
    ADAPTER_CONFIG,
    MERGE_IT,
    AdapterConfig,
    parse_adapter_config,
)
from tensorsurgeon.checkpoint.config_file import read_config
from tensorsurgeon.checkpoint.folder import Checkpoint, Identity
from tensorsurgeon.checkpoint.header import parse_start, read_header
from tensorsurgeon.checkpoint.identity import identify
from tensorsurgeon.checkpoint.json_scan import NAME_SHOWN
from tensorsurgeon.checkpoint.links import STAY_INSIDE, leaves
from tensorsurgeon.checkpoint.remote import Repo
from tensorsurgeon.errors import CheckpointError, did_you_mean, fix_for, shortened
from tensorsurgeon.specs import StoredTensor

ADAPTER_WEIGHTS = "adapter_model.safetensors"

_PICKLED = "adapter_model.bin"
_PREFIX = "base_model.model."

_FACTOR = re.compile(
    r"(?P<module>.+)\.(?:"
    r"lora_(?P<factor>[AB])\.weight|lora_embedding_(?P<embedding>[AB])|"
    r"lora_B\.(?P<bias>bias)|lora_(?P<magnitude>magnitude)_vector(?:\.weight)?)"
)
_WHOLE = re.compile(
    r"(?P<module>.+?)(?:\.modules_to_save(?:\.default)?|\.base_layer)?\.(?P<end>\w+)"
)
_NAME_LIMIT = 1000
"""Longest name of a tensor; real ones have 150 characters."""

_OF_METHODS = re.compile(r"(?:^|\.)(?:lora_|ia3_|vera_|vblora_|hada_|lokr_|oft_|token_adapter\b)")
"""Parts of names that no tensor of a model has: those of methods that are not read here."""


@dataclass(kw_only=True, slots=True)
class AdaptedModule:
    """The tensors by which a module is changed.

    Attributes:
        is_embedding: whether the factors are an embedding's, which multiply the other way round.
        a: (rank, in).
        b: (out, rank).
        bias: (out,), of the second factor.
        magnitude: (out,), the lengths that rows of the changed weight are brought to.
    """

    is_embedding: bool = False
    a: StoredTensor | None = None
    b: StoredTensor | None = None
    bias: StoredTensor | None = None
    magnitude: StoredTensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapter:
    """What an adapter changes.

    Attributes:
        config: its config.
        modules: the modules it changes by factors, by their names.
        whole: tensors that take the place of the model's, by these' names.
    """

    config: AdapterConfig
    modules: Mapping[str, AdaptedModule] = field(default_factory=dict)
    whole: Mapping[str, StoredTensor] = field(default_factory=dict)


def open_adapter(path: Path, repo: Repo | None = None) -> Checkpoint:
    """Read an adapter folder's config and header.

    Args:
        path: the folder.
        repo: has those files that are not in it. The config is.

    Raises:
        CheckpointError: no such folder, no adapter in it, or a pickled one; says what to do.
        HeaderError: from the file itself.
    """
    elsewhere = {} if repo is None else repo.files
    try:
        here = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise CheckpointError(what, where=str(path), fix=fix_for(error)) from None
    _check_files(path, {*here, *elsewhere})
    names = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
    # Before any of them is read, as in `open_checkpoint`.
    identities: dict[Path, Identity] = {
        path / name: identify(path / name) if name in here else elsewhere[name] for name in names
    }
    config = read_config(path / ADAPTER_CONFIG)
    if ADAPTER_WEIGHTS in here:
        tensors = read_header(path / ADAPTER_WEIGHTS)
    else:
        assert repo is not None
        assert repo.starts is not None
        start = repo.starts([ADAPTER_WEIGHTS])[ADAPTER_WEIGHTS]
        tensors = parse_start(start, elsewhere[ADAPTER_WEIGHTS].nbytes, path / ADAPTER_WEIGHTS)
    checkpoint = Checkpoint(
        path=path,
        config=config,
        tensors=tensors,
        identities=identities,
        tokenizer_files=(),
        other_files=(),
        repo=repo,
    )
    adapter_of(checkpoint)
    return checkpoint


def adapter_of(checkpoint: Checkpoint) -> Adapter:
    """Tell what the tensors of an adapter are.

    Args:
        checkpoint: what `open_adapter` has read.

    Raises:
        CheckpointError: a tensor of an unknown kind, a module that lacks one, or a shape or rank
            that contradicts another or the config.
    """
    where = str(checkpoint.path / ADAPTER_WEIGHTS)
    config = parse_adapter_config(checkpoint.config, checkpoint.path / ADAPTER_CONFIG)
    modules: dict[str, AdaptedModule] = {}
    whole: dict[str, StoredTensor] = {}
    for name, tensor in checkpoint.tensors.items():
        if not tensor.spec.dtype.computable:
            what = f"tensor '{_short(name)}' is of dtype {tensor.spec.dtype.value}"
            raise CheckpointError(f"{what}, with which nothing can be computed", where=where)
        if len(name) > _NAME_LIMIT:
            raise CheckpointError(f"tensor '{_short(name)}' has too long a name", where=where)
        inner = name.removeprefix(_PREFIX)
        factor, replacing = _FACTOR.fullmatch(inner), _WHOLE.fullmatch(inner)
        if factor and inner != name:
            _add_factor(modules, factor, tensor, where)
        elif replacing and inner != name and not _OF_METHODS.search(inner):
            model_name = f"{replacing['module']}.{replacing['end']}"
            if model_name in whole:
                raise CheckpointError(f"has '{_short(model_name)}' twice", where=where)
            whole[model_name] = tensor
        else:
            raise CheckpointError(
                f"tensor '{_short(name)}' is of no kind that is known of LoRA adapters",
                where=where,
                fix=MERGE_IT,
            )
    if not checkpoint.tensors:
        fix = "it was saved before its tensors were gathered: save it again"
        raise CheckpointError("has no tensors", where=where, fix=fix)
    for module, parts in modules.items():
        _check_module(module, parts, config, where)
    return Adapter(config=config, modules=modules, whole=whole)


def _check_files(path: Path, names: set[str]) -> None:
    """Whether config and weights are there, and of the folder."""
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "there is no such folder"
        raise CheckpointError(what, where=str(path))
    if ADAPTER_CONFIG not in names:
        raise CheckpointError(
            f"has no {ADAPTER_CONFIG}",
            where=str(path),
            fix="an adapter is the folder that PEFT's save_pretrained has made",
        )
    if ADAPTER_WEIGHTS not in names and _PICKLED in names:
        raise CheckpointError(
            f"has its weights in {_PICKLED}, a pickle: opening one runs its code",
            where=str(path),
            fix="load it with PEFT and call save_pretrained(folder), which writes safetensors",
        )
    if ADAPTER_WEIGHTS not in names:
        found = sorted(name for name in names if name.endswith(".safetensors"))
        fix = did_you_mean(ADAPTER_WEIGHTS, found) if found else ""
        raise CheckpointError(f"has no {ADAPTER_WEIGHTS}", where=str(path), fix=fix)
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if leaves(path, name):
            raise CheckpointError(
                "is a link that leaves its folder", where=str(path / name), fix=STAY_INSIDE
            )


def _add_factor(
    modules: dict[str, AdaptedModule], found: re.Match[str], tensor: StoredTensor, where: str
) -> None:
    parts = modules.setdefault(found["module"], AdaptedModule())
    if found["embedding"]:
        parts.is_embedding = True
    factor = found["factor"] or found["embedding"]
    slot = factor.lower() if factor else found["bias"] or found["magnitude"]
    if getattr(parts, slot) is not None:
        raise CheckpointError(f"tensor '{_short(tensor.spec.name)}' is there twice", where=where)
    setattr(parts, slot, tensor)


def _check_module(module: str, parts: AdaptedModule, config: AdapterConfig, where: str) -> None:
    """Whether a module's tensors are all there and fit each other and the config."""
    if parts.a is None or parts.b is None:
        lacking = "A" if parts.a is None else "B"
        raise CheckpointError(
            f"module '{_short(module)}' has no lora_{lacking}",
            where=where,
            fix="the file is incomplete: save or download the adapter again",
        )
    a, b = parts.a.spec.shape, parts.b.spec.shape
    if len(a) != 2 or len(b) != 2:
        raise CheckpointError(
            f"module '{_short(module)}': its factors are {list(a)} and {list(b)}; only those of "
            "two dimensions each are read",
            where=where,
            fix=MERGE_IT,
        )
    if a[0] != b[1] or a[0] not in config.ranks:
        said = " or ".join(map(str, sorted(config.ranks)))
        raise CheckpointError(
            f"module '{_short(module)}': its factors are {list(a)} and {list(b)}, where "
            f"{ADAPTER_CONFIG} speaks of rank {shortened(said)}",
            where=where,
            fix="weights and config are of different adapters, or of different downloads",
        )
    if (parts.magnitude is None) is bool(config.use_dora):
        has, says = ("no", "sets") if config.use_dora else ("a", "does not set")
        raise CheckpointError(
            f"module '{_short(module)}' has {has} lora_magnitude_vector, though {ADAPTER_CONFIG} "
            f"{says} use_dora",
            where=where,
            fix="weights and config are of different adapters, or of different downloads",
        )
    for part in (parts.bias, parts.magnitude):
        if part is not None and part.spec.elements != b[0]:
            raise CheckpointError(
                f"tensor '{_short(part.spec.name)}' is {list(part.spec.shape)}, where lora_B "
                f"is {list(b)}",
                where=where,
            )


def _short(name: str) -> str:
    return shortened(name, NAME_SHOWN)
