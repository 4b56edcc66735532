"""The settings that a config keeps for single layers, in whatever form.

Each is read into one value for each layer, which moves along with the layer, and is written
back in the form it had. A setting that moves and cannot be written is refused by name: a config
that reads well and means something else would go unnoticed.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Protocol

from tensorsurgeon.arch.derived import PerLayer, number
from tensorsurgeon.arch.families import Family
from tensorsurgeon.errors import ArchitectureError


class Form(Protocol):
    """A way in which one key of a config may speak of single layers."""

    def read(self, setting: Any, depth: int) -> list[Any] | None:
        """One value for each of `depth` layers; None where the setting has another form."""

    def write(self, values: Sequence[Any]) -> Any:
        """The setting that gives each layer its value; None where there is no such setting."""


class _EachLayer:
    """`layer_types: [full_attention, sliding_attention, …]`."""

    def read(self, setting: Any, depth: int) -> list[Any] | None:
        return list(setting) if isinstance(setting, list) and len(setting) == depth else None

    def write(self, values: Sequence[Any]) -> list[Any]:
        return list(values)


class _Indices:
    """`mlp_only_layers: [0, 3]`; read into true and false."""

    def read(self, setting: Any, depth: int) -> list[Any] | None:
        return [layer in setting for layer in range(depth)] if isinstance(setting, list) else None

    def write(self, values: Sequence[Any]) -> list[int]:
        return [layer for layer, special in enumerate(values) if special]


class _FirstLayers:
    """`first_k_dense_replace: 3`, how many layers at the bottom are special."""

    def read(self, setting: Any, depth: int) -> list[Any] | None:
        return [layer < setting for layer in range(depth)] if type(setting) is int else None

    def write(self, values: Sequence[Any]) -> int | None:
        first = sum(values)
        return first if all(values[:first]) else None


class _UpToLayer:
    """`moe_layer_end_index: 27`, the index of the last layer that is special; -1 is the topmost."""

    def read(self, setting: Any, depth: int) -> list[Any] | None:
        if type(setting) is not int:
            return None
        end = depth - 1 if setting == -1 else setting
        return [layer <= end for layer in range(depth)]

    def write(self, values: Sequence[Any]) -> int | None:
        first = sum(values)
        return first - 1 if first and all(values[:first]) else None


class _Letters:
    """`hybrid_override_pattern: "M-M*-"`, a letter for each layer."""

    def read(self, setting: Any, depth: int) -> list[Any] | None:
        return list(setting) if isinstance(setting, str) and len(setting) == depth else None

    def write(self, values: Sequence[Any]) -> str:
        return "".join(values)


class _ByLayer:
    """`per_layer_config: {"5": {…}}`, what differs in some layers, by their indices."""

    def read(self, setting: Any, depth: int) -> list[Any] | None:
        if not isinstance(setting, dict) or not all(str(key).isdecimal() for key in setting):
            return None
        by_layer = {int(key): value for key, value in setting.items()}
        return [by_layer.get(layer) for layer in range(depth)]

    def write(self, values: Sequence[Any]) -> dict[str, Any]:
        return {str(layer): value for layer, value in enumerate(values) if value is not None}


class _Runs:
    """`attention_types: [[["global", "local"], 12]]`, runs of layers and how often each comes."""

    def read(self, setting: Any, depth: int) -> list[Any] | None:
        try:
            fits = sum(len(kinds) * times for kinds, times in setting) == depth
        except (TypeError, ValueError):
            return None
        return [value for kinds, times in setting for value in kinds * times] if fits else None

    def write(self, values: Sequence[Any]) -> list[Any]:
        return [[list(values), 1]]


_EACH_LAYER = _EachLayer()

_FORMS: Mapping[str, Form] = {
    "mlp_only_layers": _Indices(),
    "moe_layers": _Indices(),
    "attn_layer_indices": _Indices(),
    "full_attn_idxs": _Indices(),
    "cross_attention_layers": _Indices(),
    "local_layer_ids": _Indices(),
    "rope_scaling_layers": _Indices(),
    "first_k_dense_replace": _FirstLayers(),
    "num_dense_layers": _FirstLayers(),
    "moe_layer_start_index": _FirstLayers(),
    "moe_layer_end_index": _UpToLayer(),
    "hybrid_override_pattern": _Letters(),
    "per_layer_config": _ByLayer(),
    "attention_types": _Runs(),
}
"""Keys that do not simply list a value for each layer."""

_ALWAYS_LISTS = ("layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers")
"""Keys that list a value for each layer wherever they stand; an empty list is as none."""

_NOT_PER_LAYER = (
    "architectures",
    "*token*",
    "*_dtype",
    "mtp_*",
    "vision_*",
    "*image*",
    "*patch*",
    "*kernel*",
    "conv_*",
    "*_section",
    "*_multipliers",
    "time_step_limit",
    "*block_types",
    "lang*",
    "pos_att_type",
)
"""Globs on keys whose lists have nothing to do with layers, though they may be as long."""

_PERIODS: Mapping[str, str | None] = {
    "attn_layer_period": "layer_types",
    "block_types": "layer_types",
    "_block_types": "layer_types",
    "cross_layer_interval": None,
    "decoder_sparse_step": "mlp_only_layers",
    "expert_layer_period": "mlp_layer_types",
    "full_attention_interval": "layer_types",
    "global_attn_every_n_layers": "layer_types",
    "interleave_moe_layer_step": "moe_layers",
    "layer_group_size": "layer_types",
    "moe_layer_freq": "mlp_layer_types",
    "moe_layer_interval": "mlp_layer_types",
    "no_rope_layer_interval": "no_rope_layers",
    "sliding_window_pattern": "layer_types",
}
"""Keys after which layers that lie a period apart are alike, and the list that overrides each."""

_FIXED: Mapping[str, tuple[str, str | None]] = {
    "hidden_size_per_layer_input": ("the input of its own that a token brings it", None),
    "index_topk_pattern": ("which layer's choice of keys it takes over", "indexer_types"),
    "kv_source_layers": ("which layer's keys and values it takes over", None),
    "linear_attn_config": ("its kind of attention", "layer_types"),
    "n_layers_per_attn_res_block": ("which layers it sums up", None),
    "num_kv_shared_layers": ("which layer's keys and values it takes over", None),
    "ple_layer_ids": ("the input of its own that a token brings it", None),
    "scale_depth": ("the weight of its residual sums", None),
    "scale_attn_by_inverse_layer_idx": ("the scale of its attention", None),
}
"""Keys that, where they are set, bind something a layer computes to its index or to the depth: what
that is, and the list that overrides each."""


def read_settings(text: Mapping[str, Any], depth: int, family: Family) -> PerLayer:
    """One value for each layer, by key.

    Args:
        text: the language model's config.
        depth: how many layers it has.
        family: what is known of it.

    Raises:
        ArchitectureError: a list that must have an entry for each layer has not.
    """
    for key in _ALWAYS_LISTS:
        listed = text.get(key)
        if isinstance(listed, list) and len(listed) not in (0, depth):
            raise ArchitectureError(
                f"config.json: '{key}' has {len(listed)} entries, but there are {depth} layers"
            )
    found = family.by_index(text, depth)
    for key, setting in text.items():
        if any(fnmatchcase(key, pattern) for pattern in _NOT_PER_LAYER):
            continue
        values = _FORMS.get(key, _EACH_LAYER).read(setting, depth)
        if values is not None:
            found[key] = values
    if "mlp_layer_types" in found:  # the numbers it came from are not read any more
        found.pop("first_k_dense_replace", None)
        found.pop("num_dense_layers", None)
    if "mlp_only_layers" in found:
        step = number(text, "decoder_sparse_step", 1) or 1
        found["mlp_only_layers"] = [
            dense or (layer + 1) % step != 0 for layer, dense in enumerate(found["mlp_only_layers"])
        ]
    return found


def write_settings(text: dict[str, Any], settings: PerLayer) -> None:
    """Write one value for each layer into the language model's config.

    Raises:
        ArchitectureError: a setting cannot be written in its form.
    """
    for key, values in settings.items():
        setting = _FORMS.get(key, _EACH_LAYER).write(values)
        if setting is None:
            special = [layer for layer, is_special in enumerate(values) if is_special]
            raise ArchitectureError(
                f"'{key}' of config.json can only mark layers at the bottom, which here would be "
                f"{', '.join(map(str, special)) or 'none'} of {len(values)}",
                fix="keep the layers that it marks at the bottom of the stack",
            )
        text[key] = setting
    if "mlp_only_layers" in settings and "decoder_sparse_step" in text:
        text["decoder_sparse_step"] = 1  # what it said of each index is in the list now


def check_moves(
    text: Mapping[str, Any],
    family: Family,
    settings: PerLayer,
    moves: Iterable[tuple[int, int]],
) -> None:
    """Whether layers may stand elsewhere, by what depends on an index and cannot be written.

    Args:
        text: the config of the language model that the layers come from.
        family: what is known of it.
        settings: what `read_settings` returned for it.
        moves: each layer's old index and its new one.

    Raises:
        ArchitectureError: they may not; names the setting.
    """
    if family.fixed:
        raise _fixed(family.fixed)
    for key, (what, override) in _FIXED.items():
        if text.get(key) and override not in settings:
            raise _fixed(what, key)
    periods = periods_in(text, settings)
    for old, new in moves:
        for key, period in periods.items():
            if (new - old) % period:
                raise ArchitectureError(
                    f"layer {old} cannot become layer {new}: by '{key}' of config.json only layers "
                    f"that lie {period} apart are alike",
                    fix=f"move layers by multiples of {period}",
                )


def periods_in(text: Mapping[str, Any], settings: PerLayer) -> dict[str, int]:
    """After how many layers they are alike again, by the key that says so.

    Args:
        text: a language model's config.
        settings: what `read_settings` returned for it.
    """
    found = {
        key: len(text[key]) if isinstance(text[key], list | str) else text[key]
        for key, override in _PERIODS.items()
        if text.get(key) and override not in settings
    }
    return {key: period for key, period in found.items() if type(period) is int}


def _fixed(what: str, key: str = "") -> ArchitectureError:
    by = f" ('{key}' of config.json)" if key else ""
    return ArchitectureError(
        f"the layers of this model cannot be moved, copied or dropped: {what} follows from the "
        f"layer's index or the depth{by}"
    )
