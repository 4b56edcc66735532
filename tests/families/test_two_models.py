"""Two models of one family in one result, and the pairs that do not fit."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tensorsurgeon.errors import ArchitectureError
from tests.families.conftest import Base, Grow
from tests.families.folders import read_config, with_config
from tests.families.models import (
    BERT,
    DEEPSEEK,
    GEMMA2,
    GEMMA3_MULTIMODAL,
    LLAMA,
    MIXTRAL,
    QWEN2_SLIDING,
    SMOLLM3,
    Family,
)
from tests.families.reference import load, outputs

Slice = tuple[str, int, int]
"""Part of a stack: the model's name, its first layer there, and the one after its last."""


def stack(*slices: Slice) -> dict[str, Any]:
    return {"stack": [{"model": name, "layers": [start, end]} for name, start, end in slices]}


def two_stacked_by_hand(family: Family, first: Path, second: Path, *slices: Slice) -> Any:
    """The first model with layers of both, and with the norm of the model of the last slice."""
    models = {"first": load(first, family), "second": load(second, family)}
    order = [(name, layer) for name, start, end in slices for layer in range(start, end)]
    grown = copy.deepcopy(models["first"])
    layers = [copy.deepcopy(models[name].model.layers[layer]) for name, layer in order]
    grown.model.layers = torch.nn.ModuleList(layers)
    grown.model.norm = models[slices[-1][0]].model.norm
    grown.config.num_hidden_layers = len(order)
    grown.config.layer_types = [models[name].config.layer_types[layer] for name, layer in order]
    return grown


def test_layers_of_two_models_compute_what_they_compute_by_hand(base: Base, grow: Grow) -> None:
    first, second = base(GEMMA2), base(GEMMA2, seed=1)
    slices = (("first", 0, 3), ("second", 1, 4), ("first", 3, 4), ("second", 4, 5))
    model = load(grow(stack(*slices), first=first, second=second), GEMMA2)
    by_hand = two_stacked_by_hand(GEMMA2, first, second, *slices)
    assert torch.equal(outputs(model), outputs(by_hand))


def test_layer_keeps_its_kind_where_two_models_give_one_index_different_kinds(
    base: Base, grow: Grow
) -> None:
    """No layer moves, and yet the config is neither model's."""
    first = base(SMOLLM3)
    second = base(SMOLLM3.with_settings(no_rope_layer_interval=2), seed=1)
    slices = (("first", 0, 2), ("second", 2, 5))
    grown = grow(stack(*slices), first=first, second=second)
    assert read_config(grown)["no_rope_layers"] == [1, 1, 1, 0, 1]
    by_hand = two_stacked_by_hand(SMOLLM3, first, second, *slices)
    assert torch.equal(outputs(load(grown, SMOLLM3)), outputs(by_hand))


@pytest.mark.parametrize("family", [GEMMA2, MIXTRAL, GEMMA3_MULTIMODAL], ids=str)
def test_average_of_two_models_is_that_of_their_weights(
    family: Family, base: Base, grow: Grow
) -> None:
    first, second = base(family), base(family, seed=1)
    averaged = load(grow({"linear": {"models": ["a", "b"]}}, a=first, b=second), family)
    by_hand = load(first, family)
    others = dict(load(second, family).named_parameters())
    with torch.no_grad():
        for name, weight in by_hand.named_parameters():
            weight.lerp_(others[name], 0.5)
    for name, weight in averaged.named_parameters():
        assert torch.allclose(weight, by_hand.get_parameter(name), rtol=0, atol=1e-6), name
    assert torch.allclose(outputs(averaged), outputs(by_hand), rtol=0, atol=1e-3)


@pytest.mark.parametrize("family", [GEMMA2, MIXTRAL, GEMMA3_MULTIMODAL], ids=str)
def test_slerp_of_two_models_loads_and_is_neither(family: Family, base: Base, grow: Grow) -> None:
    first, second = base(family), base(family, seed=1)
    between = grow({"slerp": {"models": ["a", "b"], "t": 0.5}}, a=first, b=second)
    found = outputs(load(between, family))
    assert not torch.equal(found, outputs(load(first, family)))
    assert not torch.equal(found, outputs(load(second, family)))


MERGES = [{"linear": {"models": ["one", "two"]}}, {"slerp": {"models": ["one", "two"], "t": 0.5}}]
STACK = stack(("one", 0, 3), ("two", 2, 5))

WIDER_VOCABULARY = LLAMA.with_settings(vocab_size=72)
DEEPER = LLAMA.with_settings(num_hidden_layers=6)
WIDER = LLAMA.with_settings(intermediate_size=56)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (WIDER_VOCABULARY, r"\[64, 32\] in 'one' and \[72, 32\] in 'two': their vocabularies"),
        (DEEPER, r"'one' has 5 layers, 'two' has 6"),
        (GEMMA2, r"'one' is of family llama, 'two' of gemma2"),
        (BERT, r"'one' is of family llama, 'two' of bert"),
        (WIDER, r"\[\d+, \d+\] in 'one' and \[\d+, \d+\] in 'two'"),
    ],
    ids=["vocabulary", "depth", "family", "encoder", "width"],
)
@pytest.mark.parametrize("merge", MERGES, ids=["linear", "slerp"])
def test_models_that_do_not_fit_are_not_merged(
    merge: dict[str, Any], other: Family, message: str, base: Base, grow: Grow
) -> None:
    with pytest.raises(ArchitectureError, match=message):
        grow(merge, one=base(LLAMA), two=base(other, seed=1))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (GEMMA2, r"layers of 'two' \(gemma2, .*\) do not fit 'one' \(llama, .*\)"),
        (BERT, r"layers of 'two' \(bert, .*\) do not fit 'one' \(llama, .*\)"),
        (WIDER, r"is \[\d+, \d+\] in 'two', but .* is \[\d+, \d+\] in 'one'"),
    ],
    ids=["family", "encoder", "width"],
)
def test_models_that_do_not_fit_are_not_stacked(
    other: Family, message: str, base: Base, grow: Grow
) -> None:
    with pytest.raises(ArchitectureError, match=message):
        grow(STACK, one=base(LLAMA), two=base(other, seed=1))


def test_models_of_different_depths_are_stacked(base: Base, grow: Grow) -> None:
    model = load(grow(STACK, one=base(LLAMA), two=base(DEEPER, seed=1)), LLAMA)
    assert len(model.model.layers) == 6


def test_model_whose_config_has_no_kinds_is_not_stacked_with_one_that_has(
    base: Base, grow: Grow, tmp_path: Path
) -> None:
    sliding = base(QWEN2_SLIDING)
    with_config(sliding, tmp_path / "off", without=["layer_types"], use_sliding_window=False)
    with pytest.raises(ArchitectureError, match="sets 'layer_types' for each layer, another's"):
        grow(STACK, one=sliding, two=tmp_path / "off")


def test_models_with_different_vocabularies_are_not_stacked(base: Base, grow: Grow) -> None:
    with pytest.raises(ArchitectureError, match=r"72.* in 'two', but .*64.* in 'one': their voc"):
        grow(STACK, one=base(LLAMA), two=base(WIDER_VOCABULARY, seed=1))


def test_vocabulary_of_a_model_in_the_middle_does_not_matter(base: Base, grow: Grow) -> None:
    between = stack(("one", 0, 2), ("two", 0, 1), ("one", 1, 2))
    grown = grow(between, one=base(LLAMA), two=base(WIDER_VOCABULARY, seed=1))
    assert len(load(grown, LLAMA).model.layers) == 4


def test_stack_that_ends_in_a_tied_model_would_have_no_head_and_is_refused(
    base: Base, grow: Grow
) -> None:
    tied = LLAMA.with_settings(tie_word_embeddings=True)
    with pytest.raises(ArchitectureError, match=r"'lm_head\.weight' is in 'one' and not in 'two'"):
        grow(STACK, one=base(LLAMA), two=base(tied, seed=1))


def test_stack_that_begins_in_a_tied_model_is_untied(base: Base, grow: Grow) -> None:
    tied = LLAMA.with_settings(tie_word_embeddings=True)
    model = load(grow(STACK, one=base(tied), two=base(LLAMA, seed=1)), LLAMA)
    assert torch.equal(model.lm_head.weight, load(base(LLAMA, seed=1), LLAMA).lm_head.weight)


def test_dense_layers_of_another_model_above_its_experts_are_refused(
    base: Base, grow: Grow
) -> None:
    with pytest.raises(ArchitectureError, match=r"'first_k_dense_replace' of config\.json"):
        grow(stack(("one", 0, 3), ("two", 0, 5)), one=base(DEEPSEEK), two=base(DEEPSEEK, seed=1))
