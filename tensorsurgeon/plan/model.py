"""A model that need not exist yet: its layers, its config, and a node for each of its tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tensorsurgeon.arch import Architecture, find_architecture
from tensorsurgeon.checkpoint import Checkpoint
from tensorsurgeon.plan.nodes import Node, Stored
from tensorsurgeon.recipe import Place
from tensorsurgeon.specs import LayerOrigin, SourceLayer


@dataclass(frozen=True, kw_only=True)
class Model:
    """What an expression of the recipe makes.

    Attributes:
        label: what to call it in errors: its name, or its operator.
        architecture: how its names and config speak of layers.
        config: its config.json.
        tensors: a node for each tensor, in the order they are written.
        origins: the layer map, one entry a layer.
        donor: the source whose tokenizer and other files go along.
    """

    label: str
    architecture: Architecture
    config: Mapping[str, Any]
    tensors: Mapping[str, Node]
    origins: tuple[LayerOrigin, ...]
    donor: str

    @property
    def is_quantized(self) -> bool:
        """Whether its stored numbers mean nothing without their scales."""
        return "quantization_config" in self.config

    def place(self, name: str) -> Place:
        """Where one of its tensors stands, as schedules see it."""
        depth = self.architecture.depth
        if found := self.architecture.split(name):
            return Place(name=name, layer=found[0], depth=depth)
        return Place(name=name, layer=self.architecture.side(name), depth=depth)


def source_model(name: str, checkpoint: Checkpoint, layers: str | None) -> Model:
    """A checkpoint as it is, its tensors in the order of the layers."""
    where = str(checkpoint.path)
    architecture = find_architecture(
        checkpoint.config, checkpoint.tensors, where=where, layers=layers
    )
    return Model(
        label=name,
        architecture=architecture,
        config=checkpoint.config,
        tensors={
            tensor: Stored(tensor=checkpoint.tensors[tensor], source=name)
            for tensor in in_layer_order(architecture, list(checkpoint.tensors))
        },
        origins=tuple(
            LayerOrigin(sources=(SourceLayer(source=name, layer=layer),))
            for layer in range(architecture.depth)
        ),
        donor=name,
    )


def in_layer_order(architecture: Architecture, names: list[str]) -> list[str]:
    """Names as they are met on the way through the model; inside a layer as they were."""

    def rank(name: str) -> tuple[int, int]:
        if found := architecture.split(name):
            return (1, found[0])
        return (0, 0) if architecture.side(name) == "before" else (2, 0)

    return sorted(names, key=rank)
