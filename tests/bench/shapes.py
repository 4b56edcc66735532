"""The Llama shapes the benchmark merges: tensor names, sizes in bytes, config.json."""

from dataclasses import dataclass, replace
from math import prod
from typing import Any, Self

BF16_BYTES = 2


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Everything that decides the tensors of a Llama checkpoint stored in bf16."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocab: int
    tied: bool = False

    def with_layers(self, layers: int) -> Self:
        """The same model at another depth."""
        return replace(self, layers=layers)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes, in the order of the forward pass."""
        kv_width = self.hidden // self.heads * self.kv_heads
        layer = {
            "input_layernorm": (self.hidden,),
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.k_proj": (kv_width, self.hidden),
            "self_attn.v_proj": (kv_width, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "post_attention_layernorm": (self.hidden,),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
        }
        tensors: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocab, self.hidden)
        }
        for index in range(self.layers):
            for name, shape in layer.items():
                tensors[f"model.layers.{index}.{name}.weight"] = shape
        tensors["model.norm.weight"] = (self.hidden,)
        if not self.tied:
            tensors["lm_head.weight"] = (self.vocab, self.hidden)
        return tensors

    @property
    def parameters(self) -> int:
        """Elements in all tensors; a tied output head counts once."""
        return sum(prod(shape) for shape in self.tensors().values())

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return self.parameters * BF16_BYTES

    def config(self) -> dict[str, Any]:
        """config.json as transformers 5 writes it."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 1,
            "dtype": "bfloat16",
            "eos_token_id": 2,
            "head_dim": self.hidden // self.heads,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": 2048,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "pretraining_tp": 1,
            "rms_norm_eps": 1e-05,
            "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
            "tie_word_embeddings": self.tied,
            "use_cache": True,
            "vocab_size": self.vocab,
        }


# SmolLM2-135M, TinyLlama-1.1B, Llama-3.2-3B and Mistral-7B.
SCALES = {
    "135M": Shape(
        layers=30, hidden=576, intermediate=1536, heads=9, kv_heads=3, vocab=49152, tied=True
    ),
    "1.1B": Shape(layers=22, hidden=2048, intermediate=5632, heads=32, kv_heads=4, vocab=32000),
    "3B": Shape(
        layers=28, hidden=3072, intermediate=8192, heads=24, kv_heads=8, vocab=128256, tied=True
    ),
    "7B": Shape(layers=32, hidden=4096, intermediate=14336, heads=32, kv_heads=8, vocab=32000),
}
