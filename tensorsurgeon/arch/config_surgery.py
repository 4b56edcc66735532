"""config.json of a model with other layers, or with weights of another dtype.

Every setting that a config keeps for each layer follows its layer, and so does what transformers
would derive from a layer's index; what cannot follow is refused.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tensorsurgeon.arch.architecture import Architecture
from tensorsurgeon.arch.derived import PerLayer
from tensorsurgeon.arch.per_layer import check_moves, periods_in, read_settings, write_settings
from tensorsurgeon.arch.structure import Shapes, Slot, check_kinds
from tensorsurgeon.errors import ArchitectureError

_CODE_KEYS = ("auto_map", "custom_pipelines")
"""Keys of a config whose values name Python classes outside of transformers."""


@dataclass(frozen=True, kw_only=True)
class LayerSource:
    """Where a layer of the new model comes from: a model, and its layer there.

    Attributes:
        architecture: how that model speaks of layers.
        config: its config.json.
        layer: the layer's index there.
        tensors: the shapes of all its tensors; without them it is not checked that layers are of
            the kinds that their new places ask for.
    """

    architecture: Architecture
    config: Mapping[str, Any]
    layer: int
    tensors: Shapes = field(default_factory=dict)


def config_with_layers(
    architecture: Architecture, config: Mapping[str, Any], layers: Sequence[LayerSource]
) -> dict[str, Any]:
    """The config of a model made of other layers.

    Args:
        architecture: the model whose config is the ground to build on.
        config: its config.json.
        layers: the new model's layers.

    Raises:
        ArchitectureError: something about a layer would change with its place, or one model's
            config has a setting for each layer that another's lacks.
    """
    new = copy.deepcopy(dict(config))
    unmoved = [source.layer for source in layers] == list(range(architecture.depth))
    if unmoved and all(source.config == config for source in layers):
        return new
    distinct = {id(source.config): source for source in layers}
    models = {identity: _SourceModel(source) for identity, source in distinct.items()}
    for identity, model in models.items():
        check_moves(
            model.text,
            model.architecture.family,
            model.settings,
            [(s.layer, index) for index, s in enumerate(layers) if id(s.config) == identity],
        )
    settings = _gathered([(models[id(source.config)], source.layer) for source in layers])
    _check_last(architecture, settings)
    ground = next((model for model in models.values() if model.config == config), None)
    if ground is not None:
        slots = [models[id(source.config)].slots[source.layer] for source in layers]
        check_kinds(ground.slots, slots)
    text = architecture.text_of(new)
    _write(text, architecture, settings, len(layers))
    if text is not new and new.get(architecture.depth_keys[0]) == architecture.depth:
        # Some multimodal configs repeat their language model's settings at the top.
        _write(new, architecture, {k: v for k, v in settings.items() if k in new}, len(layers))
    return new


def config_with_weights(
    architecture: Architecture, config: Mapping[str, Any], *, dtype: str | None, tied: bool | None
) -> dict[str, Any]:
    """The config of the same model, true to the weights that are written.

    Args:
        architecture: the model.
        config: its config.json.
        dtype: torch's name of the weights' dtype; None leaves what is there.
        tied: whether the output head is the input embedding; None leaves what is there.
    """
    new = copy.deepcopy(dict(config))
    text = architecture.text_of(new)
    if dtype is not None:
        for part in (new, *(value for value in new.values() if isinstance(value, dict))):
            for key in ("dtype", "torch_dtype"):
                if key in part:
                    part[key] = dtype
        if "dtype" not in new and "torch_dtype" not in new:
            new["dtype"] = dtype
    if tied is not None:
        text["tie_word_embeddings"] = tied  # written out, since some families tie by default
        if "tie_word_embeddings" in new:
            new["tie_word_embeddings"] = tied
    return new


def without_code(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without what makes transformers run Python files of the folder or of the Hub.

    `auto_map` and `custom_pipelines` name classes in them; both are dropped at any depth. For a
    model that transformers knows by its `model_type` nothing is lost.
    """
    return {key: _without_code(value) for key, value in config.items() if key not in _CODE_KEYS}


class _SourceModel:
    """One model that layers come from, read once."""

    def __init__(self, source: LayerSource) -> None:
        self.architecture, self.config = source.architecture, source.config
        self.text: Mapping[str, Any] = self.architecture.text_of(self.config)
        depth = self.architecture.depth
        self.settings = read_settings(self.text, depth, self.architecture.family)
        shapes: list[dict[str, tuple[int, ...]]] = [{} for _ in range(depth)]
        for name, shape in source.tensors.items():
            if found := self.architecture.split(name):
                shapes[found[0]][found[1]] = shape
        self.slots = tuple(
            Slot(index=layer, setting=self._setting(layer), shapes=shapes[layer])
            for layer in range(depth)
        )

    def _setting(self, layer: int) -> str:
        own = {key: values[layer] for key, values in self.settings.items()}
        for key, period in periods_in(self.text, self.settings).items():
            own[key] = layer % period
        return json.dumps(own, sort_keys=True)


def _gathered(layers: Sequence[tuple[_SourceModel, int]]) -> PerLayer:
    """What the new model's config says of each layer, by key."""
    keys = {key for model, _ in layers for key in model.settings}
    for key in sorted(keys):
        if any(key not in model.settings for model, _ in layers):
            raise ArchitectureError(
                f"config.json of one stacked model sets '{key}' for each layer, another's does not"
            )
    return {key: [model.settings[key][layer] for model, layer in layers] for key in sorted(keys)}


def _check_last(architecture: Architecture, settings: PerLayer) -> None:
    forced = architecture.family.last_layer
    kinds = settings.get("layer_types")
    if forced and kinds and kinds[-1] != forced:
        raise ArchitectureError(
            f"the last layer would be one with {kinds[-1]}, but transformers gives the last layer "
            f"of a {architecture.model_type} model {forced}",
            fix=f"let the stack end with a layer that has {forced}",
        )


def _without_code(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_code(value)
    return [_without_code(inner) for inner in value] if isinstance(value, list) else value


def _write(
    part: dict[str, Any], architecture: Architecture, settings: PerLayer, depth: int
) -> None:
    for key in architecture.depth_keys:
        if key in part:
            part[key] = depth
    write_settings(part, settings)
