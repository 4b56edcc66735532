"""The table of known model families; everything else is inferred.

A family is listed for what its tensors and config do not say by themselves: which tensors write
to the residual stream, and which settings of a layer follow from its index alone, so that moving
the layer must write them down.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tensorsurgeon.arch.derived import (
    LINEAR,
    ByIndex,
    dense_then_sparse,
    every,
    llama4,
    nothing,
    qwen2_moe,
    smollm3,
    upper_layers_slide,
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """What is known of a model family.

    Attributes:
        writes_residual: globs on names inside a layer: what adds to the residual stream. Zero
            there makes the layer an identity. Empty where no zeroing does, as with a norm behind
            the sum, and where nobody has tried it.
        by_index: per-layer settings that transformers derives from a layer's index where the
            config does not list them.
        last_layer: the kind of attention that transformers forces upon the last layer.
        fixed: what a layer computes by its index that no config can say; such layers stay where
            they are.
    """

    writes_residual: tuple[str, ...] = ()
    by_index: ByIndex = nothing
    last_layer: str = ""
    fixed: str = ""


_GATED_MLP = ("self_attn.o_proj.*", "mlp.down_proj.*")
_EXPERTS = (*_GATED_MLP, "mlp.experts.*.down_proj.*", "mlp.experts.down_proj*")
_QWEN_MOE = (*_EXPERTS, "mlp.shared_expert.down_proj.*")
_LINEAR_QWEN = every(4, key="full_attention_interval", others=LINEAR)
_PATTERN_OF_6 = every(6, key="sliding_window_pattern")
_PATTERN_OF_4 = every(4, key="sliding_window_pattern")
_PERIOD_OF_3 = every(3, key="global_attn_every_n_layers", full_at=0)

FAMILIES: Mapping[str, Family] = {
    "llama": Family(writes_residual=_GATED_MLP),
    "mistral": Family(writes_residual=_GATED_MLP),
    "ministral": Family(writes_residual=_GATED_MLP),
    "qwen2": Family(writes_residual=_GATED_MLP, by_index=upper_layers_slide(28)),
    "qwen3": Family(writes_residual=_GATED_MLP, by_index=upper_layers_slide(28)),
    "qwen2_vl_text": Family(writes_residual=_GATED_MLP, by_index=upper_layers_slide(80)),
    "qwen2_5_vl_text": Family(writes_residual=_GATED_MLP, by_index=upper_layers_slide(80)),
    "gemma": Family(writes_residual=_GATED_MLP),
    # A norm follows the projections in these five, and a norm of zero is zero.
    "gemma2": Family(writes_residual=_GATED_MLP, by_index=every(2)),
    "gemma3": Family(writes_residual=_GATED_MLP, by_index=_PATTERN_OF_6),
    "gemma3_text": Family(writes_residual=_GATED_MLP, by_index=_PATTERN_OF_6),
    "olmo2": Family(writes_residual=_GATED_MLP),
    "olmo3": Family(writes_residual=_GATED_MLP, by_index=every(4)),
    "gemma4_text": Family(by_index=every(6, ends_full=True), last_layer="full_attention"),
    "gemma4_unified_text": Family(by_index=every(6, ends_full=True), last_layer="full_attention"),
    "vaultgemma": Family(by_index=every(2)),
    "phi3": Family(writes_residual=_GATED_MLP),
    "smollm3": Family(writes_residual=_GATED_MLP, by_index=smollm3),
    "cohere": Family(writes_residual=_GATED_MLP),
    "cohere2": Family(writes_residual=_GATED_MLP, by_index=_PATTERN_OF_4),
    "granite_swa": Family(by_index=every(4, full_at=0)),
    "granitemoe_swa": Family(by_index=every(4, full_at=0)),
    "cwm": Family(by_index=every(4, full_at=0)),
    "exaone4": Family(by_index=_PATTERN_OF_4),
    "mixtral": Family(
        writes_residual=(
            "self_attn.o_proj.*",
            "block_sparse_moe.experts.*.w2.*",
            "mlp.experts.down_proj",
        )
    ),
    "qwen2_moe": Family(writes_residual=_QWEN_MOE, by_index=qwen2_moe),
    "qwen3_moe": Family(writes_residual=_EXPERTS),
    "qwen3_next": Family(by_index=_LINEAR_QWEN),
    "qwen3_5_text": Family(by_index=_LINEAR_QWEN),
    "qwen3_5_moe_text": Family(by_index=_LINEAR_QWEN),
    "gpt_oss": Family(writes_residual=_EXPERTS, by_index=every(2)),
    "llama4_text": Family(by_index=llama4),
    "afmoe": Family(by_index=every(4, key="global_attn_every_n_layers")),
    "dots1": Family(by_index=upper_layers_slide(62, switch=None)),
    "exaone_moe": Family(by_index=dense_then_sparse(_PATTERN_OF_4)),
    "glm_moe_dsa": Family(by_index=dense_then_sparse(nothing)),
    "minimax": Family(by_index=every(2, others=LINEAR, full_at=0)),
    "olmo_hybrid": Family(by_index=every(4, others=LINEAR)),
    "modernbert": Family(by_index=_PERIOD_OF_3),
    "modernbert-decoder": Family(by_index=_PERIOD_OF_3),
    "gpt_neox": Family(writes_residual=("attention.dense.*", "mlp.dense_4h_to_h.*")),
    "gpt2": Family(writes_residual=("attn.c_proj.*", "mlp.c_proj.*")),
    # BERT normalises after the sum, so no zeroing makes one of its layers an identity.
    "bert": Family(),
    "diffllama": Family(fixed="the weight of the attention that it subtracts"),
    "beam": Family(fixed="the weight of its residual sums"),
    "zamba": Family(fixed="which layer's weights it shares"),
    "zamba2": Family(fixed="which layer's weights it shares"),
}

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

DEPTH_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_blocks")
"""What configs call the number of layers."""

ENCODER_KEYS = ("encoder_layers", "num_encoder_layers")
DECODER_KEYS = ("decoder_layers", "num_decoder_layers")
"""What configs of encoder-decoder models call the number of layers of each side."""
