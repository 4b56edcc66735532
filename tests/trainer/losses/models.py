"""Tiny random models of the families that the claims are made of."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from tensorsurgeon.trainer.attention import packed_inputs

VOCABULARY = 128
WINDOW = 7
"""Tokens that a sliding window shows: fewer than the documents have."""

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def config(family: str, **changes: Any) -> Any:
    kind, more = {
        "llama": (LlamaConfig, {}),
        "mistral": (MistralConfig, {"sliding_window": WINDOW}),
        "qwen2": (
            Qwen2Config,
            {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
        ),
        "qwen3": (Qwen3Config, {"head_dim": 8}),
        "gemma2": (Gemma2Config, {"head_dim": 8, "sliding_window": WINDOW}),
        "gemma3": (
            Gemma3TextConfig,
            {"head_dim": 8, "sliding_window": WINDOW, "layer_types": _MIXED},
        ),
        "phi3": (Phi3Config, {"sliding_window": WINDOW}),
        "gpt_oss": (GptOssConfig, {"head_dim": 8, "num_local_experts": 4, "rope_parameters": None}),
        "cohere": (CohereConfig, {}),
        "granite": (GraniteConfig, {}),
    }[family]
    return kind(**_SIZES | more | changes)


_MIXED = ["sliding_attention", "full_attention", "sliding_attention"]


def model(config: Any, implementation: str) -> Any:
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(config, attn_implementation=implementation).eval()
    for name, parameter in made.named_parameters():
        if parameter.dim() == 1:  # a norm that is all ones would hide where it is
            nn.init.normal_(parameter, mean=float("norm" in name), std=0.2)
    assert made.config._attn_implementation == implementation
    return made


def positions(lengths: list[list[int]]) -> Tensor:
    """(B, T) of samples that are packed with documents of these lengths."""
    return torch.tensor([[i for length in sample for i in range(length)] for sample in lengths])


def logits(model: Any, tokens: Tensor, positions: Tensor) -> Tensor:
    """As the trainer calls it."""
    inputs = packed_inputs(positions, model.config._attn_implementation)
    found: Tensor = model(tokens, **inputs, use_cache=False).logits
    return found
