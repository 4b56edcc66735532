"""What transformers derives from a layer's index where a config does not list it.

Each function takes a language model's config and its depth, and returns a value for each layer
under the key that would list them. Read from the configuration classes of transformers 5.23,
which read older checkpoints so as well.
"""

from collections.abc import Callable, Mapping
from typing import Any

from tensorsurgeon.errors import ArchitectureError

Config = Mapping[str, Any]
PerLayer = dict[str, list[Any]]
ByIndex = Callable[[Config, int], PerLayer]

FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"


def number(config: Config, key: str, default: int) -> int:
    """A number of layers that a config may give.

    Raises:
        ArchitectureError: it gives something else.
    """
    value = config.get(key)
    if value is None:
        return default
    if type(value) is not int or value < 0:
        raise ArchitectureError(f"config.json: '{key}' is {value!r:.60}, not a number of layers")
    return value


def nothing(_config: Config, _depth: int) -> PerLayer:
    """All layers are alike, or the config lists in what they differ."""
    return {}


def every(
    period: int,
    *,
    key: str | None = None,
    others: str = SLIDING,
    full_at: int = -1,
    ends_full: bool = False,
) -> ByIndex:
    """Full attention in one layer of each `period`, and in all others something cheaper.

    Args:
        period: how many layers a period has, unless the config says so.
        key: the config's word for it.
        others: what the other layers do.
        full_at: which layer of a period it is, counted from its end where negative.
        ends_full: whether the model's last layer has full attention in any case.
    """

    def by_index(config: Config, depth: int) -> PerLayer:
        if config.get("layer_types"):  # then the period may be said in words: "LLLG"
            return {}
        length = (number(config, key, period) if key else period) or period
        full = full_at % length
        types = [FULL if layer % length == full else others for layer in range(depth)]
        if ends_full:
            types[-1] = FULL
        return {"layer_types": types}

    return by_index


def upper_layers_slide(default: int, *, switch: str | None = "use_sliding_window") -> ByIndex:
    """Sliding attention from layer `max_window_layers` upwards, where it is used at all.

    Args:
        default: that layer, unless the config says so.
        switch: the config's key that turns sliding on, beside a window of some size.
    """

    def by_index(config: Config, depth: int) -> PerLayer:
        if config.get("sliding_window") is None or (switch and not config.get(switch)):
            return {}
        first = number(config, "max_window_layers", default)
        return {"layer_types": [SLIDING if layer >= first else FULL for layer in range(depth)]}

    return by_index


def qwen2_moe(config: Config, depth: int) -> PerLayer:
    """Every second layer slides, but none from `max_window_layers` upwards."""
    if not config.get("use_sliding_window"):
        return {}
    end = number(config, "max_window_layers", 28)
    slides = [layer % 2 == 0 and layer < end for layer in range(depth)]
    return {"layer_types": [SLIDING if sliding else FULL for sliding in slides]}


def smollm3(config: Config, depth: int) -> PerLayer:
    """One layer in four has no rotary position, and that one may slide."""
    rope = _rope_layers(config, depth)
    slides = bool(config.get("use_sliding_window")) and config.get("sliding_window") is not None
    return {
        "no_rope_layers": rope,
        "layer_types": [SLIDING if slides and not rotary else FULL for rotary in rope],
    }


def llama4(config: Config, depth: int) -> PerLayer:
    """One layer in four has no rotary position and sees everything; experts come periodically."""
    rope = _rope_layers(config, depth)
    step = number(config, "interleave_moe_layer_step", 1) or 1
    return {
        "no_rope_layers": rope,
        "layer_types": ["chunked_attention" if rotary else FULL for rotary in rope],
        "moe_layers": [(layer + 1) % step == 0 for layer in range(depth)],
    }


def dense_then_sparse(attention: ByIndex) -> ByIndex:
    """A first few layers without experts, and attention as in `attention`."""

    def by_index(config: Config, depth: int) -> PerLayer:
        dense = number(config, "first_k_dense_replace", 1)
        experts = ["dense" if layer < dense else "sparse" for layer in range(depth)]
        return {"mlp_layer_types": experts} | attention(config, depth)

    return by_index


def _rope_layers(config: Config, depth: int) -> list[int]:
    interval = number(config, "no_rope_layer_interval", 4) or 4
    listed = config.get("no_rope_layers")
    return listed or [int((layer + 1) % interval != 0) for layer in range(depth)]
