"""The model to train: transformers' own class, its layers and its head, before it has weights."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tensorsurgeon.checkpoint import Checkpoint
from tensorsurgeon.errors import ArchitectureError, MissingTensorError, Problem, shortened
from tensorsurgeon.specs import StoredTensor

_SHOWN = 5
"""Names listed where many are wrong."""


class Head(Protocol):
    """What turns hidden states into logits."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A causal language model and the parts of it that the trainer speaks of.

    Attributes:
        module: the model, of transformers.
        body: the part that gives the last hidden states.
        layers: its decoder layers, in order.
        prefix: what stands before a layer's index in parameter names, as `model.layers.`.
        tied: names of parameters that are another one, by that one's name in the checkpoint.
        stored: the checkpoint's tensor of each parameter and persistent buffer.
        untrained: the checkpoint's tensors that the model has no use for, by its own word.
    """

    module: Any
    body: nn.Module
    layers: nn.ModuleList
    prefix: str
    tied: Mapping[str, str]
    stored: Mapping[str, StoredTensor]
    untrained: tuple[str, ...]

    @property
    def config(self) -> Any:
        """The language model's config."""
        return self.module.config.get_text_config()

    @property
    def head(self) -> Head:
        """The layer that makes logits."""
        head: Head = self.module.get_output_embeddings()
        return head

    @property
    def embeddings(self) -> nn.Module:
        """The layer that looks tokens up."""
        module: nn.Module = self.module.get_input_embeddings()
        return module

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding."""
        return int(self.config.vocab_size)

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter once, by its name in the checkpoint."""
        by_name = {self.tied.get(name, name): p for name, p in self.module.named_parameters()}
        return iter(by_name.items())

    def layer_of(self, name: str) -> int | None:
        """The layer that a parameter is in; None outside the layers."""
        if not name.startswith(self.prefix):
            return None
        return int(name[len(self.prefix) :].partition(".")[0])


def build_model(checkpoint: Checkpoint, *, attention: str) -> LanguageModel:
    """A model without weights: parameters on the meta device, buffers real, in float32.

    Args:
        checkpoint: whose config and tensors it is of.
        attention: transformers' name of the implementation of attention.

    Raises:
        ArchitectureError: transformers knows no such causal language model, or its layers cannot
            be told.
        MissingTensorError: config and tensors disagree; names what is missing, left over or of
            another shape.
    """
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    config = read_model_config(checkpoint.path)
    with init_empty_weights(include_buffers=False):
        try:
            module = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, dtype=torch.float32, attn_implementation=attention
            )
        except (ValueError, ImportError, AttributeError, TypeError, KeyError) as error:
            raise ArchitectureError(
                f"transformers makes no causal language model of it: {_first_line(error)}",
                where=str(checkpoint.path / "config.json"),
            ) from None
    module.tie_weights()  # each tied parameter was made empty by itself
    module.config.use_cache = False
    body = getattr(module, module.base_model_prefix, None)
    if not isinstance(body, nn.Module) or body is module or module.get_output_embeddings() is None:
        raise ArchitectureError(
            f"{type(module).__name__} has no body and head that could be told apart",
            where=str(checkpoint.path / "config.json"),
        )
    prefix, layers = _find_layers(module, int(config.get_text_config().num_hidden_layers))
    tied = dict(module.all_tied_weights_keys)
    stored, untrained = _match(checkpoint, module, tied)
    return LanguageModel(
        module=module,
        body=body,
        layers=layers,
        prefix=prefix,
        tied=tied,
        stored=stored,
        untrained=untrained,
    )


def read_model_config(folder: Path) -> Any:
    """The config of a checkpoint as transformers reads it.

    Raises:
        ArchitectureError: transformers does not know such a model; no code of the folder is run.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ArchitectureError(
            f"transformers does not know this model: {_first_line(error)}",
            where=str(folder / "config.json"),
        ) from None


def _first_line(error: Exception) -> str:
    return shortened((str(error).strip() or type(error).__name__).splitlines()[0], 200)


def _find_layers(module: nn.Module, depth: int) -> tuple[str, nn.ModuleList]:
    """The list of decoder layers: of those with the model's depth, the one with most parameters."""
    lists = [
        (sum(p.numel() for p in found.parameters()), f"{name}.", found)
        for name, found in module.named_modules()
        if isinstance(found, nn.ModuleList) and len(found) == depth
    ]
    if not lists:
        what = f"{type(module).__name__} has no list of its {depth} layers"
        raise ArchitectureError(what)
    _, prefix, layers = max(lists, key=lambda entry: entry[0])
    return prefix, layers


def _match(
    checkpoint: Checkpoint, module: Any, tied: Mapping[str, str]
) -> tuple[dict[str, StoredTensor], tuple[str, ...]]:
    """The stored tensor of each entry of the model's state; all of them must agree."""
    state = module.state_dict(keep_vars=True)
    stored, problems = {}, []
    where = str(checkpoint.path)
    wanted = {name for name in state if name not in tied}
    missing = sorted(wanted - checkpoint.tensors.keys())
    ignored = [re.compile(pattern) for pattern in module._keys_to_ignore_on_load_unexpected or ()]
    left = sorted(checkpoint.tensors.keys() - wanted - tied.keys())
    over = [name for name in left if not any(pattern.search(name) for pattern in ignored)]
    for names, what in ((missing, "lacks"), (over, "has, and the model does not,")):
        if names:
            listed = ", ".join(shortened(name) for name in names[:_SHOWN])
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            problems.append(Problem(where=where, what=f"{what} {listed}{more}"))
    for name in sorted((wanted | tied.keys()) & checkpoint.tensors.keys()):
        shape, found = tuple(state[name].shape), checkpoint.tensors[name].spec.shape
        if shape != found:
            what = f"'{name}' is {list(found)}, and config.json makes it {list(shape)}"
            problems.append(Problem(where=where, what=what))
        stored[name] = checkpoint.tensors[name]
    if problems:
        error = MissingTensorError.of(problems[: 4 * _SHOWN])
        error.add_note("config.json and the tensors are of different models")
        raise error
    return stored, tuple(name for name in left if name not in over)
