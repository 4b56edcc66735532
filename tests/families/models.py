"""The families under test, each as a tiny random model: small enough that a test takes a moment.

Depths, windows and intervals are chosen so that a layer at a wrong index computes something
else: no period divides the shift of the layers, and texts are longer than the windows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
)

Settings = Mapping[str, Any]

WINDOW = 4
"""Tokens that sliding attention sees, fewer than the texts have."""

SHAPE: Settings = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

_EXPERTS: Settings = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}

_LINEAR: Settings = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}

_LATENT: Settings = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}

_VISION: Settings = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 7,
    "image_size": 16,
    "patch_size": 8,
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """How to make and to read a tiny model of one family.

    Attributes:
        name: what the tests call it.
        config_class: transformers' name of its config.
        settings: what differs from `SHAPE`; None where transformers shall choose.
        auto: the class that makes and loads it.
        layers: where its layers are in the loaded model.
        remove: layers dropped at the seam when it is grown by depth up-scaling.
        zero: what block expansion must be told to zero, where the engine does not know the family.
    """

    name: str
    config_class: str
    settings: Settings = field(default_factory=dict, hash=False)
    auto: Any = AutoModelForCausalLM
    layers: str = "model.layers"
    remove: int = 1
    zero: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def depth(self) -> int:
        """Number of its layers."""
        return int(self.config().get_text_config(decoder=True).num_hidden_layers)

    @property
    def grown(self) -> list[int]:
        """The layers of the model that depth up-scaling makes of it."""
        return [*range(self.depth - self.remove), *range(self.remove, self.depth)]

    def config(self) -> Any:
        """Its config; a nested language model's is like that of a model of its own."""
        text = {
            key: value for key, value in {**SHAPE, **self.settings}.items() if value is not None
        }
        if self.config_class == "Gemma3Config":
            parts = {"text_config": text, "vision_config": _VISION, "mm_tokens_per_image": 4}
            tokens = {"image_token_index": 60, "boi_token_index": 61, "eoi_token_index": 62}
            return transformers.Gemma3Config(**parts, **tokens)
        return getattr(transformers, self.config_class)(**text)

    def with_settings(self, **settings: Any) -> "Family":
        """The same family, with some settings of its config changed."""
        return replace(self, settings={**self.settings, **settings})

    def save(self, folder: Path, *, seed: int = 0) -> Path:
        """Writes a model in which all weights are random: no two layers, norms or biases alike."""
        torch.manual_seed(seed)
        model = self.auto.from_config(self.config(), dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.15)
        model.save_pretrained(folder)
        return folder


_QWEN2_SLIDING: Settings = {
    "use_sliding_window": True,
    "sliding_window": WINDOW,
    "max_window_layers": 2,
}
_GEMMA: Settings = {"sliding_window": WINDOW, "query_pre_attn_scalar": 8}
_SMOLLM3: Settings = {
    "no_rope_layer_interval": 3,
    "use_sliding_window": True,
    "sliding_window": WINDOW,
}
_LONG_ROPE: Settings = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 1.0,
    "original_max_position_embeddings": 32,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.0, 2.0, 4.0, 8.0],
}

GEMMA2 = Family(name="gemma2", config_class="Gemma2Config", settings=_GEMMA)
GEMMA3 = Family(
    name="gemma3",
    config_class="Gemma3TextConfig",
    settings={**_GEMMA, "num_hidden_layers": 7},
)
GEMMA3_MULTIMODAL = replace(
    GEMMA3,
    name="gemma3-multimodal",
    config_class="Gemma3Config",
    auto=AutoModelForImageTextToText,
    layers="model.language_model.layers",
)
LLAMA = Family(name="llama", config_class="LlamaConfig")
MIXTRAL = Family(name="mixtral", config_class="MixtralConfig", settings={"num_local_experts": 4})
# As many layers as each list of its rotary embedding has entries.
PHI3_LONG_ROPE = Family(
    name="phi3-longrope",
    config_class="Phi3Config",
    settings={"num_hidden_layers": 4, "rope_parameters": _LONG_ROPE},
)
QWEN2_SLIDING = Family(name="qwen2-sliding", config_class="Qwen2Config", settings=_QWEN2_SLIDING)
QWEN3_MOE = Family(name="qwen3-moe", config_class="Qwen3MoeConfig", settings=_EXPERTS)
SMOLLM3 = Family(name="smollm3", config_class="SmolLM3Config", settings=_SMOLLM3, remove=2)

DECODERS = (
    LLAMA,
    Family(name="mistral", config_class="MistralConfig", settings={"sliding_window": WINDOW}),
    Family(name="qwen2", config_class="Qwen2Config", settings={"tie_word_embeddings": True}),
    QWEN2_SLIDING,
    Family(name="qwen3", config_class="Qwen3Config"),
    GEMMA2,
    GEMMA3,
    GEMMA3_MULTIMODAL,
    Family(name="phi3", config_class="Phi3Config", settings={"sliding_window": WINDOW}),
    PHI3_LONG_ROPE,
    Family(name="olmo2", config_class="Olmo2Config"),
    SMOLLM3,
    MIXTRAL,
    QWEN3_MOE,
    replace(QWEN3_MOE, name="qwen3-moe-dense-layer", settings={**_EXPERTS, "mlp_only_layers": [1]}),
    replace(QWEN3_MOE, name="qwen3-moe-step", settings={**_EXPERTS, "decoder_sparse_step": 2}),
    Family(name="gpt-neox", config_class="GPTNeoXConfig", layers="gpt_neox.layers"),
    Family(name="gpt2", config_class="GPT2Config", layers="transformer.h"),
    Family(name="ministral", config_class="MinistralConfig", settings={"sliding_window": WINDOW}),
    Family(name="olmo3", config_class="Olmo3Config", settings={"sliding_window": WINDOW}),
    Family(name="cohere", config_class="CohereConfig"),
    Family(name="cohere2", config_class="Cohere2Config", settings={"sliding_window": WINDOW}),
    Family(
        name="gpt-oss",
        config_class="GptOssConfig",
        settings={"sliding_window": WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    Family(
        name="qwen2-moe",
        config_class="Qwen2MoeConfig",
        settings={
            **_EXPERTS,
            "use_sliding_window": True,
            "sliding_window": WINDOW,
            "max_window_layers": 4,
        },
    ),
)
"""Decoders of which the engine knows how to make a layer an identity."""

BERT = Family(
    name="bert",
    config_class="BertConfig",
    auto=AutoModelForMaskedLM,
    layers="bert.encoder.layer",
)
MINILM = replace(
    BERT,
    name="minilm",
    auto=AutoModel,
    layers="encoder.layer",
    settings={"num_hidden_layers": 6},
    remove=2,
)

EXAONE4 = Family(
    name="exaone4",
    config_class="Exaone4Config",
    settings={"sliding_window": WINDOW},
    zero=("self_attn.o_proj.*", "mlp.down_proj.*"),
)
DEEPSEEK = Family(
    name="deepseek-v3",
    config_class="DeepseekV3Config",
    settings={
        **_LATENT,
        "first_k_dense_replace": 1,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "n_group": 1,
        "topk_group": 1,
    },
    zero=("self_attn.o_proj.*", "mlp.down_proj.*", "mlp.*.down_proj.*"),
)

INFERRED = (
    EXAONE4,
    Family(
        name="falcon",
        config_class="FalconConfig",
        settings={"head_dim": None},
        layers="transformer.h",
        zero=("self_attention.dense.*", "mlp.dense_4h_to_h.*"),
    ),
    Family(
        name="starcoder2",
        config_class="Starcoder2Config",
        settings={"sliding_window": WINDOW},
        zero=("self_attn.o_proj.*", "mlp.c_proj.*"),
    ),
    Family(
        name="gpt-neo",
        config_class="GPTNeoConfig",
        settings={
            "num_layers": 5,
            "num_heads": 4,
            "window_size": WINDOW,
            "attention_types": [[["global", "local"], 2], [["local"], 1]],
        },
        layers="transformer.h",
        zero=("attn.attention.out_proj.*", "mlp.c_proj.*"),
    ),
    DEEPSEEK,
)
"""Families whose layers the engine tells from names alone."""

# Its layers end with a factor upon the whole sum, so no zeroing makes one an identity.
GEMMA4 = Family(
    name="gemma4",
    config_class="Gemma4TextConfig",
    settings={
        "num_hidden_layers": 7,
        "sliding_window": WINDOW,
        "global_head_dim": 16,
        "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0,
        "layer_types": [
            "full_attention" if layer in (1, 4, 6) else "sliding_attention" for layer in range(7)
        ],
    },
    remove=2,
)
JAMBA = Family(
    name="jamba",
    config_class="JambaConfig",
    settings={
        "num_hidden_layers": 6,
        "attn_layer_period": 4,
        "attn_layer_offset": 1,
        "num_experts": 4,
        "mamba_d_state": 4,
    },
)
MODERNBERT = Family(
    name="modernbert",
    config_class="ModernBertConfig",
    settings={"local_attention": 2 * WINDOW, "global_attn_every_n_layers": 3},
    auto=AutoModelForMaskedLM,
    remove=2,
)
BART = Family(
    name="bart",
    config_class="BartConfig",
    settings={
        "d_model": 32,
        "encoder_layers": 5,
        "decoder_layers": 5,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
    },
    auto=AutoModelForSeq2SeqLM,
    layers="model.encoder.layers",
)
T5 = Family(
    name="t5",
    config_class="T5Config",
    settings={"d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 4, "num_decoder_layers": 5},
    auto=AutoModelForSeq2SeqLM,
    layers="encoder.block",
)

LLAMA4 = Family(
    name="llama4",
    config_class="Llama4TextConfig",
    settings={
        "attention_chunk_size": WINDOW,
        "intermediate_size_mlp": 48,
        "interleave_moe_layer_step": 2,
        "no_rope_layer_interval": 3,
        "num_local_experts": 4,
    },
    remove=2,
)

PATTERNED = (
    GEMMA2,
    GEMMA3,
    GEMMA3_MULTIMODAL,
    QWEN2_SLIDING,
    SMOLLM3,
    *(f for f in DECODERS if f.name in ("olmo3", "cohere2", "gpt-oss", "qwen2-moe")),
    EXAONE4,
    MODERNBERT,
    Family(name="qwen3-sliding", config_class="Qwen3Config", settings=_QWEN2_SLIDING),
    Family(name="vaultgemma", config_class="VaultGemmaConfig", settings=_GEMMA),
    Family(
        name="cwm",
        config_class="CwmConfig",
        settings={"sliding_window": WINDOW, "rope_parameters": {"rope_type": "default"}},
    ),
    Family(
        name="qwen3-next",
        config_class="Qwen3NextConfig",
        settings={**_EXPERTS, **_LINEAR},
    ),
    LLAMA4,
)
"""Families in which transformers derives a layer's kind from its index where no list says it."""
