"""What a layer computes by its place: a place that fits, or an error that names the reason."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tensorsurgeon.arch import Architecture, LayerSource, config_with_layers
from tensorsurgeon.errors import ArchitectureError
from tests.families.conftest import Base, Grow
from tests.families.folders import read_config, with_config
from tests.families.models import (
    DEEPSEEK,
    GEMMA4,
    JAMBA,
    LLAMA,
    MODERNBERT,
    QWEN3_MOE,
    T5,
    Family,
)
from tests.families.reference import load, outputs, stacked_by_hand


def dus(remove: int) -> dict[str, Any]:
    return {"depth_up_scale": {"model": "base", "remove": remove}}


def stack(*slices: tuple[int, int]) -> dict[str, Any]:
    return {"stack": [{"model": "base", "layers": list(layers)} for layers in slices]}


# Layers that are counted from the bottom.


@pytest.mark.parametrize(("start", "dense"), [(0, 1), (1, 0)])
def test_dense_layers_at_the_bottom_are_counted_anew(
    start: int, dense: int, base: Base, grow: Grow
) -> None:
    folder = base(DEEPSEEK)
    grown = grow(stack((start, 4), (2, 5)), base=folder)
    assert read_config(grown)["first_k_dense_replace"] == dense
    by_hand = stacked_by_hand(folder, DEEPSEEK, [*range(start, 4), 2, 3, 4])
    assert torch.equal(outputs(load(grown, DEEPSEEK)), outputs(by_hand))


def test_dense_layer_above_the_experts_is_refused(base: Base, grow: Grow) -> None:
    with pytest.raises(ArchitectureError, match=r"'first_k_dense_replace' .* 0, 3 of 8") as caught:
        grow(stack((0, 3), (0, 5)), base=base(DEEPSEEK))
    assert "at the bottom of the stack" in str(caught.value)


# Layers that are alike after a period.


def test_layers_that_move_by_whole_periods_keep_their_kind(base: Base, grow: Grow) -> None:
    """Jamba's config has no list: attention comes every fourth layer, experts every second."""
    folder = base(JAMBA)
    model = load(grow(dus(1), base=folder), JAMBA)
    assert torch.equal(outputs(model), outputs(stacked_by_hand(folder, JAMBA, JAMBA.grown)))


def test_layers_that_do_not_move_by_whole_periods_are_refused(base: Base, grow: Grow) -> None:
    message = r"layer 2 cannot become layer 4: by 'attn_layer_period' .* 4 apart are alike"
    with pytest.raises(ArchitectureError, match=message):
        grow(dus(2), base=base(JAMBA))


def test_step_of_the_experts_is_written_down_as_a_list(base: Base, grow: Grow) -> None:
    folder = base(QWEN3_MOE.with_settings(decoder_sparse_step=2, mlp_only_layers=[3]))
    config = read_config(grow(dus(1), base=folder))
    assert config["decoder_sparse_step"] == 1
    assert config["mlp_only_layers"] == [0, 2, 3, 5, 6, 7]  # of old layers 0 1 2 3 1 2 3 4


# Settings that bind a layer to its index: there is nothing that could be written.


@pytest.mark.parametrize(
    ("family", "settings", "reason"),
    [
        (
            Family(name="gpt2", config_class="GPT2Config"),
            {"scale_attn_by_inverse_layer_idx": True},
            "the scale of its attention .*'scale_attn_by_inverse_layer_idx'",
        ),
        (LLAMA, {"model_type": "diffllama"}, "the attention that it subtracts"),
        (LLAMA, {"model_type": "minicpm", "scale_depth": 1.4}, "residual sums .*'scale_depth'"),
        (GEMMA4, {"num_kv_shared_layers": 2}, "keys and values .*'num_kv_shared_layers'"),
        (GEMMA4, {"hidden_size_per_layer_input": 8}, "input .*'hidden_size_per_layer_input'"),
        (LLAMA, {"model_type": "kimi", "linear_attn_config": {"kda_layers": [1]}}, "attention"),
        (LLAMA, {"model_type": "new", "sliding_window_pattern": 4}, "'sliding_window_pattern'"),
        (LLAMA, {"model_type": "new", "block_types": ["recurrent", "attention"]}, "2 apart"),
        (LLAMA, {"layer_types": ["full_attention"] * 6}, "6 entries, but there are 5 layers"),
    ],
    ids=lambda value: value.name if isinstance(value, Family) else None,
)
def test_layer_that_depends_on_its_index_is_refused_by_the_setting(
    family: Family, settings: dict[str, Any], reason: str, base: Base, grow: Grow, tmp_path: Path
) -> None:
    with_config(base(family), tmp_path / "bound", **settings)
    with pytest.raises(ArchitectureError, match=reason):
        grow(dus(1), base=tmp_path / "bound")


def test_stack_that_would_not_end_as_transformers_demands_is_refused(
    base: Base, grow: Grow
) -> None:
    with pytest.raises(ArchitectureError, match="the last layer would be one with sliding"):
        grow(stack((0, 7), (0, 4)), base=base(GEMMA4))


# Layers with tensors that others lack.


def config_of(
    kinds: str, order: list[int], config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The config of a stack of layers of several kinds, a letter for each layer of the source.

    Each kind has a tensor of its own name.
    """
    architecture = Architecture(
        model_type="",
        prefix="layers.",
        depth=len(kinds),
        depth_keys=("num_hidden_layers",),
        text_config=None,
    )
    settings = {"num_hidden_layers": len(kinds), **(config or {})}
    tensors = {f"layers.{layer}.{kind}.weight": (4, 4) for layer, kind in enumerate(kinds)}
    return config_with_layers(
        architecture,
        settings,
        [
            LayerSource(architecture=architecture, config=settings, layer=layer, tensors=tensors)
            for layer in order
        ],
    )


@pytest.mark.parametrize("order", [[0, 1, 2, 1, 2, 3], [0, 2], [0, 3, 3, 3, 1, 1]])
def test_special_bottom_layer_may_stay_at_the_bottom(order: list[int]) -> None:
    assert config_of("abbb", order)["num_hidden_layers"] == len(order)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([0, 1, 0, 1], r"layer 0 cannot become layer 2: it has a tensor 'a\.weight'"),
        ([1, 2, 3], r"layer 1 cannot become layer 0: it has a tensor 'b\.weight'"),
    ],
)
def test_special_bottom_layer_may_not_leave_its_place(order: list[int], message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        config_of("abbb", order)


def test_kinds_that_a_list_of_the_config_tells_apart_move_freely() -> None:
    config = {"layer_types": ["x", "y", "x", "y"]}
    made = config_of("abab", [0, 0, 1, 1, 3, 2], config)
    assert made["layer_types"] == ["x", "x", "y", "y", "y", "x"]


def test_kinds_that_a_period_of_the_config_tells_apart_move_by_it() -> None:
    assert config_of("abab", [0, 1, 2, 3, 2, 3], {"attn_layer_period": 2})


def test_kinds_that_nothing_tells_apart_stay_where_they_are() -> None:
    with pytest.raises(ArchitectureError, match="says which layers are so"):
        config_of("abab", [0, 1, 2, 3, 2, 3])


@pytest.mark.parametrize(
    ("family", "layers"), [(T5, "encoder.block"), (MODERNBERT, "model.layers")], ids=str
)
def test_second_copy_of_a_special_first_layer_is_refused(
    family: Family, layers: str, base: Base, grow: Grow
) -> None:
    """T5's first layer holds the position biases of all; ModernBERT's lacks a norm."""
    with pytest.raises(ArchitectureError, match="layer 0 cannot become layer 3"):
        grow(stack((0, 3), (0, 5)), base={"source": {"path": str(base(family)), "layers": layers}})


# Forms in which a config speaks of single layers.


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [
        ("layer_types", ["w", "x", "y", "z"], ["w", "x", "y", "x", "y", "z"]),
        ("intermediate_size", [1, 2, 3, 4], [1, 2, 3, 2, 3, 4]),
        ("full_attn_idxs", [1, 3], [1, 3, 5]),
        ("attn_layer_indices", [], []),
        ("num_dense_layers", 1, 1),
        ("moe_layer_start_index", 0, 0),
        ("moe_layer_end_index", 3, 5),
        ("moe_layer_end_index", -1, 5),
        ("hybrid_override_pattern", "M*-E", "M*-*-E"),
        ("per_layer_config", {"02": {"a": 1}}, {"2": {"a": 1}, "4": {"a": 1}}),
        ("attention_types", [[["g", "l"], 2]], [[["g", "l", "g", "l", "g", "l"], 1]]),
        ("eos_token_id", [5, 6, 7, 8], [5, 6, 7, 8]),
        ("architectures", ["A", "B", "C", "D"], ["A", "B", "C", "D"]),
        ("ssm_multipliers", [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]),
        ("vision_feature_layer", [-1, -2, -3, -4], [-1, -2, -3, -4]),
    ],
)
def test_setting_follows_its_layers_in_the_form_it_has(key: str, before: Any, after: Any) -> None:
    made = config_of("aaaa", [0, 1, 2, 1, 2, 3], {key: before})
    assert json.loads(json.dumps(made)) == {"num_hidden_layers": 6, key: after}
