"""Layers of several kinds: each stays of its kind, whether the config lists kinds or not."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from tensorsurgeon.errors import ArchitectureError
from tests.families.conftest import Base, Grow
from tests.families.folders import read_config, with_config
from tests.families.models import (
    EXAONE4,
    GEMMA3,
    LLAMA4,
    PATTERNED,
    QWEN2_SLIDING,
    SMOLLM3,
    Family,
)
from tests.families.reference import load, outputs, stacked_by_hand

LISTS = ("layer_types", "no_rope_layers", "moe_layers")
"""What says of each layer of which kind it is."""

# In the others a layer of the wrong kind has the wrong tensors, so that loading fails already.
OF_ONE_SHAPE = [family for family in PATTERNED if family.name not in ("llama4", "qwen3-next")]


@pytest.mark.parametrize("family", OF_ONE_SHAPE, ids=str)
def test_kinds_that_follow_the_index_or_the_old_list_would_show_in_the_outputs(
    family: Family, base: Base, grow: Grow, tmp_path: Path
) -> None:
    """Otherwise the tests of growth would pass on a config that is wrong."""
    folder = base(family)
    grown = grow({"depth_up_scale": {"model": "base", "remove": family.remove}}, base=folder)
    right = outputs(load(grown, family))

    assert with_config(grown, tmp_path / "by-index", without=LISTS)
    assert not torch.equal(outputs(load(tmp_path / "by-index", family)), right)

    lists = with_config(folder, tmp_path / "base", without=LISTS)
    repeated = {
        key: list(itertools.islice(itertools.cycle(values), len(family.grown)))
        for key, values in lists.items()
    }
    with_config(grown, tmp_path / "repeated", **repeated)
    assert not torch.equal(outputs(load(tmp_path / "repeated", family)), right)


@pytest.mark.parametrize("family", PATTERNED, ids=str)
def test_config_without_lists_gets_those_that_transformers_derives(
    family: Family, base: Base, grow: Grow, tmp_path: Path
) -> None:
    folder = tmp_path / "older"
    assert with_config(base(family), folder, without=LISTS)
    grown = grow({"depth_up_scale": {"model": "base", "remove": family.remove}}, base=folder)
    by_hand = stacked_by_hand(base(family), family, family.grown)
    assert torch.equal(outputs(load(grown, family)), outputs(by_hand))


@pytest.mark.parametrize(
    ("family", "lacking"),
    [
        (SMOLLM3, "layer_types"),
        (SMOLLM3, "no_rope_layers"),
        (LLAMA4, "layer_types"),
        (LLAMA4, "no_rope_layers"),
        (LLAMA4, "moe_layers"),
    ],
    ids=str,
)
def test_config_that_lacks_one_list_of_several_gets_it(
    family: Family, lacking: str, base: Base, grow: Grow, tmp_path: Path
) -> None:
    folder = tmp_path / "older"
    assert with_config(base(family), folder, without=[lacking])
    grown = grow({"depth_up_scale": {"model": "base", "remove": family.remove}}, base=folder)
    by_hand = stacked_by_hand(base(family), family, family.grown)
    assert torch.equal(outputs(load(grown, family)), outputs(by_hand))


def test_llama4_with_an_empty_list_of_layers_without_rope_is_as_without_the_list(
    base: Base, grow: Grow, tmp_path: Path
) -> None:
    folder = tmp_path / "older"
    with_config(base(LLAMA4), folder, without=["layer_types"], no_rope_layers=[])
    grown = grow({"depth_up_scale": {"model": "base", "remove": LLAMA4.remove}}, base=folder)
    by_hand = stacked_by_hand(base(LLAMA4), LLAMA4, LLAMA4.grown)
    assert torch.equal(outputs(load(grown, LLAMA4)), outputs(by_hand))


@pytest.mark.parametrize("pattern", [0, "LLLG", None])
def test_list_of_kinds_goes_before_a_pattern_that_says_them_in_other_words(
    pattern: int | str | None, base: Base, grow: Grow, tmp_path: Path
) -> None:
    with_config(base(EXAONE4), tmp_path / "words", sliding_window_pattern=pattern)
    grown = grow({"depth_up_scale": {"model": "base", "remove": 1}}, base=tmp_path / "words")
    by_hand = stacked_by_hand(base(EXAONE4), EXAONE4, EXAONE4.grown)
    assert torch.equal(outputs(load(grown, EXAONE4)), outputs(by_hand))


@pytest.mark.parametrize(
    "settings",
    [
        {"sliding_window_pattern": "LLLG"},
        {"sliding_window_pattern": -1},
        {"sliding_window_pattern": [1]},
        {"layer_types": ["full_attention"]},
    ],
    ids=str,
)
def test_pattern_that_makes_no_sense_is_refused_by_name(
    settings: dict[str, Any], base: Base, grow: Grow, tmp_path: Path
) -> None:
    with_config(base(EXAONE4), tmp_path / "odd", without=["layer_types"], **settings)
    with pytest.raises(ArchitectureError, match=rf"config.json: '{next(iter(settings))}'"):
        grow({"depth_up_scale": {"model": "base", "remove": 1}}, base=tmp_path / "odd")


@pytest.mark.parametrize("pattern", [2, 3])
def test_gemma3_with_an_older_sliding_window_pattern_keeps_to_it(
    pattern: int, base: Base, grow: Grow, tmp_path: Path
) -> None:
    folder = tmp_path / "older"
    with_config(base(GEMMA3), folder, without=["layer_types"], sliding_window_pattern=pattern)
    grown = grow({"depth_up_scale": {"model": "base", "remove": 2}}, base=folder)
    order = [0, 1, 2, 3, 4, 2, 3, 4, 5, 6]
    full = [(layer + 1) % pattern == 0 for layer in order]
    assert [kind == "full_attention" for kind in read_config(grown)["layer_types"]] == full
    by_hand = stacked_by_hand(folder, GEMMA3, order)
    assert torch.equal(outputs(load(grown, GEMMA3)), outputs(by_hand))


@pytest.mark.parametrize("slides", [True, False])
def test_qwen2_without_lists_slides_only_where_its_switch_is_on(
    slides: bool, base: Base, grow: Grow, tmp_path: Path
) -> None:
    folder = tmp_path / "older"
    settings = {"use_sliding_window": slides, "sliding_window": 4, "max_window_layers": 3}
    with_config(base(QWEN2_SLIDING), folder, without=["layer_types"], **settings)
    grown = grow({"depth_up_scale": {"model": "base", "remove": 1}}, base=folder)
    by_hand = stacked_by_hand(folder, QWEN2_SLIDING, QWEN2_SLIDING.grown)
    kinds = by_hand.config.layer_types
    assert kinds.count("sliding_attention") == (3 if slides else 0)
    assert torch.equal(outputs(load(grown, QWEN2_SLIDING)), outputs(by_hand))
