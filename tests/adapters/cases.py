"""Models and adapters that PEFT is asked to make: one for each thing an adapter can do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LLAMA = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": False,
}
TIED = LLAMA | {"tie_word_embeddings": True}
WITH_BIAS = LLAMA | {"attention_bias": True, "mlp_bias": True}

GPT2 = {
    "vocab_size": 32,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 16,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
"""Its layers have weights of (in, out), of which one is square."""

_LINEAR = ["q_proj", "k_proj", "o_proj", "up_proj", "down_proj"]
_CONV1D = ["c_attn", "c_proj", "c_fc"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model and an adapter.

    Attributes:
        model: the model's config.
        lora: the adapter's.
        model_type: the model's family.
        dtype: the base's.
        parted: whether PEFT trains embedding and head apart and merges into both at once, since
            they share their memory, so that only what it computes before can be compared.
    """

    model: Mapping[str, Any]
    lora: Mapping[str, Any] = field(default_factory=dict)
    model_type: str = "llama"
    dtype: str = "float32"
    parted: bool = False

    def asked(self, folder: Path) -> dict[str, Any]:
        """The case as the peer takes it."""
        return {
            "folder": str(folder),
            "model_type": self.model_type,
            "model": dict(self.model),
            "lora": {"r": 4, "lora_alpha": 6, **self.lora},
            "dtype": self.dtype,
        }


def _llama(model: Mapping[str, Any] = LLAMA, *, parted: bool = False, **lora: Any) -> Case:
    return Case(model=model, lora={"target_modules": _LINEAR, **lora}, parted=parted)


def _gpt2(**lora: Any) -> Case:
    lora = {"target_modules": _CONV1D, "fan_in_fan_out": True, **lora}
    return Case(model=GPT2, lora=lora, model_type="gpt2")


CASES = {
    "lora": _llama(),
    "bfloat16": Case(model=LLAMA, lora={"target_modules": _LINEAR}, dtype="bfloat16"),
    "rslora": _llama(use_rslora=True),
    "dora": _llama(use_dora=True),
    "patterns": _llama(
        rank_pattern={"q_proj": 2, "layers.1.mlp.up_proj": 7},
        alpha_pattern={"^model.layers.0.self_attn.q_proj": 3, "q_proj": 5, "o_proj": 12},
    ),
    "embedding": _llama(target_modules=["embed_tokens", "v_proj"]),
    "embedding_dora": _llama(target_modules=["embed_tokens", "v_proj"], use_dora=True),
    "head": _llama(target_modules=["lm_head", "v_proj"]),
    "modules_to_save": _llama(modules_to_save=["embed_tokens", "lm_head", "input_layernorm"]),
    "all_biases": _llama(WITH_BIAS, target_modules=["q_proj"], bias="all"),
    "own_biases": _llama(WITH_BIAS, target_modules=["q_proj"], bias="lora_only"),
    "bias_of_b": _llama(WITH_BIAS, target_modules=["q_proj", "up_proj"], lora_bias=True),
    "conv1d": _gpt2(),
    "conv1d_dora": _gpt2(use_dora=True),
    "conv1d_square": _gpt2(target_modules=["attn.c_proj"]),
    "tied_embedding": _llama(TIED, target_modules=["embed_tokens"], parted=True),
    "tied_head": _llama(TIED, target_modules=["lm_head"], parted=True),
    "tied_saved": _llama(TIED, modules_to_save=["embed_tokens"], parted=True),
    "tied_both": _llama(TIED, modules_to_save=["embed_tokens", "lm_head"]),
    "kept_tied": _llama(
        TIED, target_modules=["embed_tokens"], ensure_weight_tying=True, parted=True
    ),
}
