"""The model to train: transformers' own class, its layers and its head, before it has weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tensorsurgeon.checkpoint import Checkpoint
from tensorsurgeon.errors import ArchitectureError, shortened
from tensorsurgeon.trainer.conversion import Form, Piece, stored_forms


class Head(Protocol):
    """What turns hidden states into logits."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A causal language model and the parts of it that the trainer speaks of.

    Names of parameters are those of transformers' model. Most checkpoints store them by the same,
    but not all: the experts of Mixtral are stored one by one, and are one parameter.

    Attributes:
        module: the model, of transformers.
        body: the part that gives the last hidden states.
        body_prefix: what stands before the names of the body's own parts, as `model.`.
        layers: its decoder layers, in order.
        prefix: what stands before a layer's index in names of parameters, as `model.layers.`.
        tied: names of parameters that are another one, by that one's name.
        forms: the stored tensors that each parameter is made of, and each persistent buffer; of a
            tied one, only where it is stored beside the one it is tied to.
        untrained: the checkpoint's tensors that the model has no use for, by its own word.
    """

    module: Any
    body: nn.Module
    body_prefix: str
    layers: nn.ModuleList
    prefix: str
    tied: Mapping[str, str]
    forms: Mapping[str, Form]
    untrained: tuple[str, ...]

    @cached_property
    def parts(self) -> Mapping[str, tuple[tuple[str, Piece], ...]]:
        """The parameters that each stored tensor became, and its boxes in them.

        Tensors that are buffers, or that the model has no use for, are not in it.
        """
        found: dict[str, tuple[tuple[str, Piece], ...]] = {}
        parameters = dict(self.module.named_parameters(remove_duplicate=False))
        for name, form in self.forms.items():
            for piece in form if name in parameters else ():
                part = self.tied.get(name, name), piece
                found[piece.stored.spec.name] = (*found.get(piece.stored.spec.name, ()), part)
        return found

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
        """Every parameter once, by its name in the model.

        These are the names that the globs of a run file's groups match: those of experts that are
        one parameter as `model.layers.0.mlp.experts.gate_up_proj`, however they are stored.
        """
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
        ArchitectureError: transformers knows no such causal language model, its layers cannot be
            told, or its parameters are not merely parts of the tensors that are stored.
        MissingTensorError: config and tensors disagree; names what is missing, left over or of
            another shape.
    """
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    config = read_model_config(checkpoint.path)
    with init_empty_weights(include_buffers=False):
        try:
            module = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, dtype=torch.float32, attn_implementation=attention, trust_remote_code=False
            )
        except (ValueError, ImportError, AttributeError, TypeError, KeyError) as error:
            raise ArchitectureError(
                f"transformers makes no causal language model of it: {_first_line(error)}",
                where=str(checkpoint.path / "config.json"),
            ) from None
    module.tie_weights()  # each tied parameter was made empty by itself
    module.config.use_cache = False
    try:
        prefix, layers = _find_layers(module, int(config.get_text_config().num_hidden_layers))
        body_prefix, body = _find_body(module, prefix)
    except LookupError as error:
        what = f"{type(module).__name__} has no {error.args[0]}"
        raise ArchitectureError(what, where=str(checkpoint.path / "config.json")) from None
    tied = dict(module.all_tied_weights_keys)
    forms, untrained = stored_forms(module, checkpoint, tied)
    return LanguageModel(
        module=module,
        body=body,
        body_prefix=body_prefix,
        layers=layers,
        prefix=prefix,
        tied=tied,
        forms=forms,
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
    """The list of decoder layers: of those with the model's depth, the one with most parameters.

    Raises:
        LookupError: there is none.
    """
    lists = [
        (sum(p.numel() for p in found.parameters()), f"{name}.", found)
        for name, found in module.named_modules()
        if isinstance(found, nn.ModuleList) and len(found) == depth
    ]
    if not lists:
        raise LookupError(f"list of its {depth} layers")
    _, prefix, layers = max(lists, key=lambda entry: entry[0])
    return prefix, layers


def _find_body(module: Any, prefix: str) -> tuple[str, nn.Module]:
    """The part that has the layers and the embeddings, but not the head.

    Raises:
        LookupError: there is none.
    """
    head, embeddings = module.get_output_embeddings(), module.get_input_embeddings()
    body: Any = module
    names = prefix.split(".")[:-2]  # what is left of the layers' list
    for count, name in enumerate(names, 1):
        body = body.get_submodule(name)
        parts = set(body.modules())
        if head is not None and head not in parts and embeddings in parts:
            return ".".join(names[:count]) + ".", body
    raise LookupError("body and head that could be told apart")
