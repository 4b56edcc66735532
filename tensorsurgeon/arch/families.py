"""The table of known model families; everything else is inferred.

A family is listed for what its tensors and config do not say by themselves: which tensors write
to the residual stream, and which settings of a layer follow from its index alone, so that moving
the layer must write them down.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]
PerLayer = dict[str, list[Any]]


@dataclass(frozen=True, kw_only=True)
class Family:
    """What is known of a model family.

    Attributes:
        writes_residual: globs on names inside a layer: what adds to the residual stream. Zero
            there makes the layer an identity. Empty where no zeroing does, as with a norm behind
            the sum.
        by_index: per-layer settings that transformers derives from a layer's index where the
            config does not list them.
    """

    writes_residual: tuple[str, ...] = ()
    by_index: Callable[[Config, int], PerLayer] = lambda _config, _depth: {}


def _alternating(_config: Config, depth: int) -> PerLayer:
    return {"layer_types": _every(2, depth)}


def _gemma3(config: Config, depth: int) -> PerLayer:
    pattern = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6
    return {"layer_types": _every(pattern, depth)}


def _every(period: int, depth: int) -> list[str]:
    """Sliding attention, but for full attention in every `period`-th layer."""
    return [
        "full_attention" if (layer + 1) % period == 0 else "sliding_attention"
        for layer in range(depth)
    ]


def _qwen(config: Config, depth: int) -> PerLayer:
    if not config.get("use_sliding_window") or config.get("sliding_window") is None:
        return {}
    first = config.get("max_window_layers", 28)
    return {
        "layer_types": [
            "sliding_attention" if layer >= first else "full_attention" for layer in range(depth)
        ]
    }


def _smollm3(config: Config, depth: int) -> PerLayer:
    interval = config.get("no_rope_layer_interval") or 4
    rope = config.get("no_rope_layers") or [
        int((layer + 1) % interval != 0) for layer in range(depth)
    ]
    slides = bool(config.get("use_sliding_window")) and config.get("sliding_window") is not None
    return {
        "no_rope_layers": rope,
        "layer_types": [
            "sliding_attention" if slides and not has_rope else "full_attention"
            for has_rope in rope
        ],
    }


_GATED_MLP = ("self_attn.o_proj.*", "mlp.down_proj.*")

FAMILIES: Mapping[str, Family] = {
    "llama": Family(writes_residual=_GATED_MLP),
    "mistral": Family(writes_residual=_GATED_MLP),
    "qwen2": Family(writes_residual=_GATED_MLP, by_index=_qwen),
    "qwen3": Family(writes_residual=_GATED_MLP, by_index=_qwen),
    "gemma": Family(writes_residual=_GATED_MLP),
    # A norm follows the projections in these three, and a norm of zero is zero.
    "gemma2": Family(writes_residual=_GATED_MLP, by_index=_alternating),
    "gemma3": Family(writes_residual=_GATED_MLP, by_index=_gemma3),
    "gemma3_text": Family(writes_residual=_GATED_MLP, by_index=_gemma3),
    "olmo2": Family(writes_residual=_GATED_MLP),
    "phi3": Family(writes_residual=_GATED_MLP),
    "smollm3": Family(writes_residual=_GATED_MLP, by_index=_smollm3),
    "mixtral": Family(
        writes_residual=(
            "self_attn.o_proj.*",
            "block_sparse_moe.experts.*.w2.*",
            "mlp.experts.down_proj",
        )
    ),
    "qwen3_moe": Family(
        writes_residual=(
            "self_attn.o_proj.*",
            "mlp.down_proj.*",
            "mlp.experts.*.down_proj.*",
            "mlp.experts.down_proj",
        )
    ),
    "gpt_neox": Family(writes_residual=("attention.dense.*", "mlp.dense_4h_to_h.*")),
    "gpt2": Family(writes_residual=("attn.c_proj.*", "mlp.c_proj.*")),
    # BERT normalises after the sum, so no zeroing makes one of its layers an identity.
    "bert": Family(),
}

DEPTH_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
"""What configs call the number of layers."""

TEXT_CONFIGS = ("text_config", "llm_config", "language_config")
"""Where a multimodal config keeps its language model's."""

LANGUAGE_PREFIXES = ("language_model.",)
"""What marks the language model's layers among a multimodal model's."""

BEFORE_LAYERS = (
    "*embed_tokens*",
    "*embed_in.*",
    "*embeddings.*",
    "*wte.*",
    "*wpe.*",
    "*vision_*",
    "*multi_modal_projector.*",
)
"""Globs on names of tensors outside the layers that a token meets before them."""
