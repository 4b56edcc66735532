"""Adapters that are damaged, hostile, of another method or for another base: one message each."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensorsurgeon import api
from tensorsurgeon.errors import (
    CheckpointError,
    HeaderError,
    RecipeError,
    TensorSurgeonError,
)
from tests.adapters.conftest import Bench
from tests.adapters.folders import PREFIX, RECIPE, adapter_config, factors, write_adapter
from tests.cli.checkpoints import Tensors, llama_config, llama_tensors

MATRIX = "model.layers.0.self_attn.q_proj"
SHAPE = (8, 8)
WEIGHTS, CONFIG = "adapter/adapter_model.safetensors", "adapter/adapter_config.json"


@pytest.fixture
def laid(bench: Bench) -> Bench:
    """A base and an adapter that fits it."""
    bench.lay(llama_tensors(), factors(MATRIX, SHAPE), llama_config())
    return bench


def test_an_adapter_that_fits_is_planned(laid: Bench) -> None:
    assert sum(not tensor.is_copied for tensor in api.plan(laid.recipe).tensors) == 1


UNFIT_SETTINGS: dict[str, tuple[dict[str, Any], str, str]] = {
    "another_method": (
        {"peft_type": "IA3"},
        r"adapter_config\.json: is of an adapter of type IA3, and those of type LORA are read",
        "merge it into its base with PEFT",
    ),
    "no_method": ({"peft_type": None}, "of type None", ""),
    "unknown_setting": (
        {"kasa_config": {"beta": 1}},
        "sets 'kasa_config', which is not known here and may change what the adapter means",
        "merge it into its base with PEFT",
    ),
    "parameters": ({"target_parameters": ["w"]}, "sets 'target_parameters'", ""),
    "repeated_layers": ({"layer_replication": [[0, 1], [0, 2]]}, "sets 'layer_replication'", ""),
    "changed_base": (
        {"init_lora_weights": "pissa_niter_4"},
        "init_lora_weights is 'pissa_niter_4': the adapter was trained over weights",
        "path_initial_model_for_weight_conversion",
    ),
    "expression": (
        {"alpha_pattern": {"(a+)+b": 3}},
        r"alpha_pattern: '\(a\+\)\+b' is more than the end of a module's name",
        "one entry for each module",
    ),
    "rank_of_another": ({"r": 8}, r"\[4, 8\] and \[8, 4\].* speaks of rank 8", "of different"),
    "rank_zero": ({"r": 0}, "'r' is 0, which makes no sense", ""),
    "rank_text": ({"r": "4"}, "'r' is '4', which", ""),
    "rank_immense": ({"r": 10**400}, "'r' is 10000", ""),
    "rank_of_a_module": ({"rank_pattern": {"k": 0.5}}, r"'rank_pattern\.k' is 0\.5, which", ""),
    "alpha_immense": ({"lora_alpha": 10**400}, "'lora_alpha' is 10000", ""),
    "alpha_text": ({"lora_alpha": "a lot"}, "^[^\n]*: 'lora_alpha' is 'a lot', which[^\n]*$", ""),
    "magnitudes_lack": (
        {"use_dora": True},
        f"module '{MATRIX}' has no lora_magnitude_vector, though adapter_config.json sets use_dora",
        "of different adapters",
    ),
}


@pytest.mark.parametrize(("settings", "what", "fix"), UNFIT_SETTINGS.values(), ids=UNFIT_SETTINGS)
def test_setting_that_is_not_understood_is_refused(
    settings: dict[str, Any], what: str, fix: str, laid: Bench
) -> None:
    (laid.folder / CONFIG).write_text(json.dumps(adapter_config(**settings)))
    laid.refused(CheckpointError, what, fix)


@pytest.mark.parametrize("key", ["r", "lora_alpha"])
def test_config_without_what_the_scale_follows_from_is_refused(key: str, laid: Bench) -> None:
    settings = adapter_config()
    del settings[key]
    (laid.folder / CONFIG).write_text(json.dumps(settings))
    laid.refused(CheckpointError, f"lacks '{key}', which the adapter's scale follows from")


def test_all_that_is_wrong_with_a_config_is_told_together(laid: Bench) -> None:
    settings = adapter_config(r=0, use_rslora="yes", use_bdlora={"nblocks": 2})
    (laid.folder / CONFIG).write_text(json.dumps(settings))
    told = laid.refused(CheckpointError, "'r'")
    assert "'use_rslora'" in told
    assert "'use_bdlora'" in told


UNFIT_TENSORS: dict[str, tuple[Tensors, str, str]] = {
    "of_adalora": (
        {f"{PREFIX}{MATRIX}.lora_E": np.zeros((4, 1), np.float32)},
        f"tensor '{PREFIX}{MATRIX}.lora_E' is of no kind that is known",
        "merge it into its base with PEFT",
    ),
    "of_ia3": (
        {f"{PREFIX}{MATRIX}.ia3_l": np.zeros((4, 1), np.float32)},
        "of no kind that is known",
        "",
    ),
    "of_tokens": (
        {
            f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta": np.zeros(
                (2, 8), np.float32
            )
        },
        "of no kind that is known",
        "",
    ),
    "without_prefix": (
        {f"{MATRIX}.lora_A.weight": np.zeros((4, 8), np.float32)},
        "of no kind that is known",
        "",
    ),
    "lacks_b": (
        {f"{PREFIX}lm_head.lora_A.weight": np.zeros((4, 8), np.float32)},
        "module 'lm_head' has no lora_B",
        "incomplete",
    ),
    "magnitude_unasked": (
        {f"{PREFIX}{MATRIX}.lora_magnitude_vector": np.zeros(8, np.float32)},
        "has a lora_magnitude_vector, though adapter_config.json does not set use_dora",
        "",
    ),
    "bias_too_long": (
        {f"{PREFIX}{MATRIX}.lora_B.bias": np.zeros(9, np.float32)},
        r"lora_B\.bias' is \[9\], where lora_B is \[8, 4\]",
        "",
    ),
    "integers": (
        {f"{PREFIX}model.norm.weight": np.zeros(8, np.int64)},
        "is of dtype I64",
        "",
    ),
    "twice": (
        {
            f"{PREFIX}model.norm.weight": np.zeros(8, np.float32),
            f"{PREFIX}model.norm.modules_to_save.weight": np.zeros(8, np.float32),
        },
        r"has 'model\.norm\.weight' twice",
        "",
    ),
    "convolution": (
        {
            f"{PREFIX}conv.lora_A.weight": np.zeros((4, 3, 2, 2), np.float32),
            f"{PREFIX}conv.lora_B.weight": np.zeros((5, 4, 1, 1), np.float32),
        },
        "only those of two dimensions each are read",
        "merge it",
    ),
    "not_gathered": (
        {
            f"{PREFIX}lm_head.lora_A.weight": np.zeros(0, np.float32),
            f"{PREFIX}lm_head.lora_B.weight": np.zeros(0, np.float32),
        },
        "only those of two dimensions each are read",
        "",
    ),
    "factors_of_two": (
        {
            f"{PREFIX}lm_head.lora_A.weight": np.zeros((4, 8), np.float32),
            f"{PREFIX}lm_head.lora_B.weight": np.zeros((16, 5), np.float32),
        },
        r"module 'lm_head': its factors are \[4, 8\] and \[16, 5\]",
        "",
    ),
}


@pytest.mark.parametrize(("tensors", "what", "fix"), UNFIT_TENSORS.values(), ids=UNFIT_TENSORS)
def test_tensor_that_makes_no_sense_is_refused(
    tensors: Tensors, what: str, fix: str, laid: Bench
) -> None:
    write_adapter(laid.folder / "adapter", factors(MATRIX, SHAPE) | tensors)
    laid.refused(CheckpointError, what, fix)


def test_adapter_without_tensors_is_refused(laid: Bench) -> None:
    write_adapter(laid.folder / "adapter", {})
    laid.refused(CheckpointError, "has no tensors", "before its tensors were gathered")


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter/adapter_model.bin")


def renamed(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter/model.safetensors")


def without_config(folder: Path) -> None:
    (folder / CONFIG).unlink()


def cut(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, 200)


def no_json(folder: Path) -> None:
    (folder / CONFIG).write_text('{"r": 4, "r": 8}')


def not_finite(folder: Path) -> None:
    (folder / CONFIG).write_text(json.dumps(adapter_config(lora_alpha=float("inf"))))


def link_out(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "elsewhere.safetensors")
    (folder / WEIGHTS).symlink_to(folder / "elsewhere.safetensors")


def pipe(folder: Path) -> None:
    (folder / CONFIG).unlink()
    os.mkfifo(folder / CONFIG)


def a_file(folder: Path) -> None:
    (folder / "adapter").rename(folder / "moved")
    (folder / "adapter").write_text("")


FOLDERS: dict[str, tuple[Callable[[Path], None], type[TensorSurgeonError], str, str]] = {
    "pickled": (
        pickled,
        CheckpointError,
        r"adapter: has its weights in adapter_model\.bin, a pickle",
        "save_pretrained",
    ),
    "renamed": (
        renamed,
        CheckpointError,
        r"has no adapter_model\.safetensors",
        "did you mean 'model.safetensors'",
    ),
    "without_config": (
        without_config,
        CheckpointError,
        r"adapter: has no adapter_config\.json",
        "PEFT's save_pretrained",
    ),
    "cut": (cut, HeaderError, "does not fit the file", "download it again"),
    "no_json": (no_json, CheckpointError, "duplicate key 'r'", ""),
    "not_finite": (not_finite, CheckpointError, "Infinity is not JSON", ""),
    "link_out": (link_out, CheckpointError, "is a link that leaves its folder", ""),
    "pipe": (pipe, CheckpointError, "is not a regular file", ""),
    "a_file": (a_file, CheckpointError, "is not a folder", ""),
}


@pytest.mark.parametrize(("spoil", "kind", "what", "fix"), FOLDERS.values(), ids=FOLDERS)
def test_folder_that_is_no_adapter_is_refused(
    spoil: Callable[[Path], None],
    kind: type[TensorSurgeonError],
    what: str,
    fix: str,
    laid: Bench,
) -> None:
    spoil(laid.folder)
    laid.refused(kind, what, fix)


RECIPES = {
    "model: base, adapter: ./adaptor": (CheckpointError, "there is no folder", "'adapter'"),
    "model: base": (RecipeError, "'lora' needs 'adapter'", "model, adapter, weight"),
    "model: base, adapter: ''": (RecipeError, "adapter", ""),
    "model: base, adapter: ./adapter, scale: 2": (RecipeError, "no parameter 'scale'", "weight"),
    "model: base, adapter: ./adapter, weight: .nan": (RecipeError, "not a finite number", ""),
    "model: base, adapter: ./adapter, weight: [{match: '*.x', value: 0}, 1]": (
        RecipeError,
        r"weight: rule '\*\.x' matches no tensor",
        "names are like",
    ),
}


@pytest.mark.parametrize(("inside", "expected"), RECIPES.items(), ids=RECIPES)
def test_expression_that_makes_no_sense_is_refused(
    inside: str, expected: tuple[type[TensorSurgeonError], str, str], laid: Bench
) -> None:
    laid.recipe.write_text(RECIPE.replace("model: base, adapter: ./adapter", inside))
    laid.refused(*expected)


def test_adapter_that_is_named_as_a_model_is_told_how_to_be_applied(laid: Bench) -> None:
    laid.recipe.write_text("models: {m: ./adapter}\nresult: m\n")
    what = r"adapter: is a LoRA adapter, not a model"
    laid.refused(CheckpointError, what, "{lora: {model: …, adapter: …}}")


def test_all_adapters_that_are_not_there_are_told_together(laid: Bench) -> None:
    one, two = "{model: base, adapter: ./one}", "{model: base, adapter: ./two}"
    models = f"models: {{base: ./base, a: {{lora: {one}}}, b: {{lora: {two}}}}}"
    laid.recipe.write_text(f"{models}\nresult: {{linear: {{models: [a, b]}}}}\n")
    told = laid.refused(CheckpointError, "there is no folder one")
    assert "there is no folder two" in told


def test_row_that_dora_cannot_lengthen_stops_the_run(bench: Bench) -> None:
    base, adapter = llama_tensors(), factors(MATRIX, SHAPE, magnitude=True)
    base[f"{MATRIX}.weight"][3] = 0
    adapter[f"{PREFIX}{MATRIX}.lora_B.weight"][3] = 0
    bench.lay(base, adapter, llama_config(), settings=adapter_config(use_dora=True))
    with pytest.raises(CheckpointError) as caught:
        bench.merged()
    assert f"tensor '{MATRIX}.weight': row 3 is all zero under the adapter" in str(caught.value)


def test_nan_in_an_adapter_is_told_with_its_tensor(bench: Bench) -> None:
    adapter = factors(MATRIX, SHAPE)
    adapter[f"{PREFIX}{MATRIX}.lora_A.weight"][0, 0] = np.nan
    bench.lay(llama_tensors(), adapter, llama_config())
    with pytest.raises(CheckpointError) as caught:
        bench.merged()
    assert f"{PREFIX}{MATRIX}.lora_A.weight has 1 NaN" in str(caught.value)
    bench.merged(allow_nonfinite=True)
