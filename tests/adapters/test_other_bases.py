"""Adapters that do not fit their base: one message, which names the first tensor and the count."""

import numpy as np

from tensorsurgeon.errors import ArchitectureError, CheckpointError
from tests.adapters.conftest import Bench
from tests.adapters.folders import PREFIX, factors
from tests.cli.checkpoints import Tensors, llama_config, llama_tensors

MATRIX = "model.layers.0.self_attn.q_proj"
SHAPE = (8, 8)


def test_adapter_for_another_base_is_told_by_its_first_tensor(bench: Bench) -> None:
    adapter: Tensors = {}
    for layer in range(2):
        adapter |= factors(f"model.layers.{layer}.self_attn.q_proj", (12, 12))
    bench.lay(llama_tensors(), adapter, llama_config())
    bench.refused(
        ArchitectureError,
        r"recipe\.yaml:2:10: 'adapter \./adapter' is for another base: it changes "
        rf"'{MATRIX}\.weight' as \[12, 12\], which is \[8, 8\] in 'base' \(2 such tensors\); "
        r"it was trained over 'org/base'",
    )


def test_other_vocabulary_is_named_as_such(bench: Bench) -> None:
    larger = {f"{PREFIX}lm_head.weight": np.zeros((20, 8), np.float32)}
    bench.lay(llama_tensors(), larger, llama_config())
    what = r"'lm_head\.weight' as \[20, 8\], which is \[16, 8\]"
    bench.refused(ArchitectureError, what, "give the model the adapter's vocabulary first")


def test_embeddings_factors_that_do_not_fit_are_told_in_its_shape(bench: Bench) -> None:
    adapter = factors("model.embed_tokens", (8, 20), embedding=True)
    bench.lay(llama_tensors(), adapter, llama_config())
    bench.refused(ArchitectureError, r"embed_tokens\.weight' as \[20, 8\], which is \[16, 8\]")


def test_module_that_the_model_lacks_is_told_with_the_nearest_name(bench: Bench) -> None:
    adapter = factors("model.layers.7.self_attn.q_proj", SHAPE) | factors("model.qkv", SHAPE)
    bench.lay(llama_tensors(), adapter, llama_config())
    what = r"'base' has no 'model\.layers\.7\.self_attn\.q_proj\.weight', .* \(2 such tensors\)"
    bench.refused(ArchitectureError, what, "did you mean 'model.layers.")


def test_bias_for_a_module_without_one_is_refused(bench: Bench) -> None:
    bias = {f"{PREFIX}{MATRIX}.lora_B.bias": np.zeros(8, np.float32)}
    bench.lay(llama_tensors(), factors(MATRIX, SHAPE) | bias, llama_config())
    bench.refused(ArchitectureError, rf"has no '{MATRIX}\.bias'")


def test_head_of_a_model_that_has_none_is_refused(bench: Bench) -> None:
    base = llama_tensors()
    del base["lm_head.weight"]
    bench.lay(base, factors("lm_head", (16, 8)), llama_config())  # which ties nothing
    bench.refused(ArchitectureError, r"has no 'lm_head\.weight'")


def test_two_names_for_one_tensor_are_refused(bench: Bench) -> None:
    adapter = factors(MATRIX, SHAPE) | factors(MATRIX.removeprefix("model."), SHAPE)
    bench.lay(llama_tensors(), adapter, llama_config())
    bench.refused(CheckpointError, rf"changes '{MATRIX}\.weight' of 'base' twice")


def test_quantized_base_is_refused(bench: Bench) -> None:
    config = llama_config() | {"quantization_config": {"quant_method": "gptq"}}
    bench.lay(llama_tensors(), factors(MATRIX, SHAPE), config)
    bench.refused(ArchitectureError, "'base' is quantized", "the unquantized model")


def test_transposed_factors_are_another_bases_where_weights_are_not_transposed(
    bench: Bench,
) -> None:
    adapter = factors("model.layers.0.mlp.up_proj", (8, 16))
    bench.lay(llama_tensors(), adapter, llama_config())
    bench.refused(ArchitectureError, r"as \[8, 16\], which is \[16, 8\]")
