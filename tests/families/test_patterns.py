"""Which names number the layers: inferred, or named by the recipe where several could."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tensorsurgeon.errors import ArchitectureError
from tests.families.conftest import Base, Grow
from tests.families.folders import read_config, with_config
from tests.families.models import BART, LLAMA, T5, Family
from tests.families.reference import load, outputs, stacked_by_hand

DUS = {"depth_up_scale": {"model": "base", "remove": 2}}
ORDER = [0, 1, 2, 2, 3, 4]


@pytest.mark.parametrize(
    ("family", "patterns"),
    [
        (T5, ("encoder.block.", "decoder.block.")),
        (T5.with_settings(num_decoder_layers=4), ("encoder.block.", "decoder.block.")),
        (BART, ("model.encoder.layers.", "model.decoder.layers.")),
    ],
    ids=["t5", "t5-unequal", "bart"],
)
def test_encoder_decoder_is_refused_with_both_patterns_and_the_key_that_decides(
    family: Family, patterns: tuple[str, str], base: Base, grow: Grow
) -> None:
    with pytest.raises(ArchitectureError, match="several name patterns fit") as caught:
        grow(DUS, base=base(family))
    message = str(caught.value)
    assert all(pattern in message for pattern in patterns)
    assert "{source: {path: …, layers: " in message


@pytest.mark.parametrize(
    ("family", "layers", "keys"),
    [
        (T5, "encoder.block", {"num_layers": 6, "num_decoder_layers": 5}),
        (T5, "decoder.block", {"num_layers": 5, "num_decoder_layers": 6}),
        (BART, "model.encoder.layers", {"encoder_layers": 6, "decoder_layers": 5}),
        (BART, "model.decoder.layers", {"encoder_layers": 5, "decoder_layers": 6}),
    ],
    ids=["t5-encoder", "t5-decoder", "bart-encoder", "bart-decoder"],
)
def test_side_that_the_recipe_names_grows_and_the_other_does_not(
    family: Family, layers: str, keys: dict[str, int], base: Base, grow: Grow
) -> None:
    folder = base(family)
    grown = grow(DUS, base={"source": {"path": str(folder), "layers": layers}})
    config = read_config(grown)
    assert {key: config[key] for key in keys} == keys
    by_hand = stacked_by_hand(folder, replace(family, layers=layers), ORDER)
    assert torch.equal(outputs(load(grown, family)), outputs(by_hand))


def test_every_key_that_repeats_the_depth_is_changed(
    base: Base, grow: Grow, tmp_path: Path
) -> None:
    with_config(base(BART), tmp_path / "older", num_hidden_layers=5)
    source = {"source": {"path": str(tmp_path / "older"), "layers": "model.encoder.layers"}}
    config = read_config(grow(DUS, base=source))
    assert config["encoder_layers"] == config["num_hidden_layers"] == 6


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"layers": "model.blocks"}, "'layers: model.blocks' does not number exactly"),
        ({}, "config.json says 7 layers, which no tensor names number"),
    ],
)
def test_names_that_do_not_number_the_layers_are_listed(
    source: dict[str, str], message: str, base: Base, grow: Grow, tmp_path: Path
) -> None:
    with_config(base(LLAMA), tmp_path / "other", num_hidden_layers=5 if source else 7)
    with pytest.raises(ArchitectureError, match=message) as caught:
        grow(DUS, base={"source": {"path": str(tmp_path / "other"), **source}})
    assert "'model.layers.' 0 to 4" in str(caught.value)
