"""config.json of a model with other layers, or with weights of another dtype.

Every setting that a config keeps for each layer follows its layer: lists of the old depth's
length, lists of layer indices, and what transformers would derive from an index.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensorsurgeon.arch.architecture import Architecture
from tensorsurgeon.errors import ArchitectureError

_NOT_PER_LAYER = ("architectures", "eos_token_id", "bos_token_id", "pad_token_id", "torch_dtype")
"""Lists whose length has nothing to do with the depth, though it may happen to equal it."""

_INDEX_LISTS = ("mlp_only_layers",)
"""Lists of the indices of layers that are special."""


@dataclass(frozen=True, kw_only=True)
class LayerSource:
    """Where a layer of the new model comes from: a model, and its layer there."""

    architecture: Architecture
    config: Mapping[str, Any]
    layer: int


def config_with_layers(
    architecture: Architecture, config: Mapping[str, Any], layers: Sequence[LayerSource]
) -> dict[str, Any]:
    """The config of a model made of other layers.

    Args:
        architecture: the model whose config is the ground to build on.
        config: its config.json.
        layers: the new model's layers.

    Raises:
        ArchitectureError: a setting of one model's layers that another's config lacks.
    """
    new = copy.deepcopy(dict(config))
    moved = any(source.layer != index for index, source in enumerate(layers))
    if not moved and len(layers) == architecture.depth:
        return new
    text = new[architecture.text_config] if architecture.text_config else new
    text[architecture.depth_key] = len(layers)
    settings = {id(source.config): _per_layer(source) for source in layers}
    keys = sorted({key for found in settings.values() for key in found})
    for key in keys:
        lacking = next((s for s in layers if key not in settings[id(s.config)]), None)
        if lacking is not None:
            raise ArchitectureError(
                f"config.json of one stacked model sets '{key}' for each layer, another's does not"
            )
        text[key] = [settings[id(source.config)][key][source.layer] for source in layers]
    for key in _INDEX_LISTS:
        if key in keys:
            text[key] = [layer for layer, special in enumerate(text[key]) if special]
    if "mlp_only_layers" in keys and text.get("decoder_sparse_step", 1) != 1:
        text["decoder_sparse_step"] = 1  # what it said of each index is in the list now
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
    text = new[architecture.text_config] if architecture.text_config else new
    if dtype is not None:
        for part in (new, text):
            for key in ("dtype", "torch_dtype"):
                if key in part:
                    part[key] = dtype
        if "dtype" not in new and "torch_dtype" not in new:
            new["dtype"] = dtype
    if tied is not None:
        for part in (new, text):
            if "tie_word_embeddings" in part:
                part["tie_word_embeddings"] = tied
    return new


def _per_layer(source: LayerSource) -> dict[str, list[Any]]:
    """The settings of each layer of one model, by key; index lists as flags."""
    architecture, depth = source.architecture, source.architecture.depth
    config = source.config
    text = config[architecture.text_config] if architecture.text_config else config
    found = {
        key: list(value)
        for key, value in text.items()
        if isinstance(value, list)
        and len(value) == depth
        and key not in _NOT_PER_LAYER
        and key not in _INDEX_LISTS
    }
    derived = architecture.family.by_index(text, depth)
    found |= {key: value for key, value in derived.items() if text.get(key) is None}
    dense = text.get("mlp_only_layers") or []
    step = text.get("decoder_sparse_step", 1) or 1
    if dense or step != 1:
        found["mlp_only_layers"] = [
            layer in dense or (layer + 1) % step != 0 for layer in range(depth)
        ]
    return found
