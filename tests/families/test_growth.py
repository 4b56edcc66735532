"""Every family, grown: transformers loads it, and it computes what its layers compute by hand."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import RunCli
from tests.families.conftest import Base, Grow, WriteRecipe
from tests.families.folders import read_config
from tests.families.models import (
    BERT,
    DECODERS,
    GEMMA2,
    GEMMA3_MULTIMODAL,
    GEMMA4,
    INFERRED,
    LLAMA,
    MINILM,
    PATTERNED,
    PHI3_LONG_ROPE,
    Family,
)
from tests.families.reference import load, outputs, stacked_by_hand

FAMILIES = dict.fromkeys((*DECODERS, BERT, MINILM, *INFERRED, *PATTERNED, GEMMA4))

each_family = pytest.mark.parametrize("family", FAMILIES, ids=str)


@each_family
def test_depth_up_scaling_equals_the_module_list_stacked_by_hand(
    family: Family, base: Base, grow: Grow
) -> None:
    folder = base(family)
    grown = grow({"depth_up_scale": {"model": "base", "remove": family.remove}}, base=folder)
    model = load(grown, family)
    assert len(model.get_submodule(family.layers)) == 2 * (family.depth - family.remove)
    assert torch.equal(outputs(model), outputs(stacked_by_hand(folder, family, family.grown)))


@each_family
def test_stack_of_the_command_line_equals_the_module_list_stacked_by_hand(
    family: Family, base: Base, write_recipe: WriteRecipe, run_cli: RunCli
) -> None:
    folder, top = base(family), family.depth
    slices = [[0, 3], [1, 4], [2, top]]
    stack = [{"model": "base", "layers": layers} for layers in slices]
    recipe = write_recipe({"stack": stack}, base=folder)
    done = run_cli("apply", recipe, "--quiet")
    order = [layer for first, end in slices for layer in range(first, end)]
    assert done.returncode == 0, done.stderr
    model = load(recipe.with_suffix(""), family)
    assert torch.equal(outputs(model), outputs(stacked_by_hand(folder, family, order)))


def test_model_without_a_stored_head_stays_tied_to_its_embedding(base: Base, grow: Grow) -> None:
    folder = base(GEMMA2)
    assert not any("lm_head" in name for name in load_file(folder / "model.safetensors"))
    model = load(grow({"depth_up_scale": {"model": "base", "remove": 1}}, base=folder), GEMMA2)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_multimodal_model_grows_in_its_language_model_alone(base: Base, grow: Grow) -> None:
    folder = base(GEMMA3_MULTIMODAL)
    before = read_config(folder)
    # As many layers on both sides: their number alone does not tell which is which.
    assert before["vision_config"]["num_hidden_layers"] == GEMMA3_MULTIMODAL.depth == 7
    grown = grow({"depth_up_scale": {"model": "base", "remove": 1}}, base=folder)
    after = read_config(grown)
    assert after["text_config"]["num_hidden_layers"] == len(after["text_config"]["layer_types"])
    assert after["text_config"]["num_hidden_layers"] == 12
    assert after["vision_config"] == before["vision_config"]
    stored, written = (load_file(f / "model.safetensors") for f in (folder, grown))
    vision = [name for name in stored if "vision" in name]
    assert vision
    assert set(vision) == {name for name in written if "vision" in name}
    assert all(torch.equal(stored[name], written[name]) for name in vision)


def test_buffer_that_transformers_ignores_is_carried_along(
    base: Base, grow: Grow, tmp_path: Path
) -> None:
    """Sentence encoders of some years ago hold the numbers of the positions as a tensor."""
    folder = MINILM.save(tmp_path / "minilm")
    file = folder / "model.safetensors"
    positions = torch.arange(64)[None]
    save_file(
        load_file(file) | {"embeddings.position_ids": positions}, file, metadata={"format": "pt"}
    )
    grown = grow({"depth_up_scale": {"model": "base", "remove": 2}}, base=folder)
    written = load_file(grown / "model.safetensors")
    assert torch.equal(written["embeddings.position_ids"], positions)
    by_hand = stacked_by_hand(base(MINILM), MINILM, MINILM.grown)
    assert torch.equal(outputs(load(grown, MINILM)), outputs(by_hand))


def test_list_as_long_as_the_model_is_deep_is_left_alone_if_it_is_of_tokens(
    base: Base, grow: Grow
) -> None:
    family = LLAMA.with_settings(eos_token_id=[2, 3, 4, 5, 6])
    grown = grow({"depth_up_scale": {"model": "base", "remove": 1}}, base=base(family))
    assert read_config(grown)["eos_token_id"] == [2, 3, 4, 5, 6]


def test_lists_of_a_rotary_embedding_are_left_alone(base: Base, grow: Grow) -> None:
    folder = base(PHI3_LONG_ROPE)
    before = read_config(folder)["rope_parameters"]
    assert len(before["short_factor"]) == len(before["long_factor"]) == PHI3_LONG_ROPE.depth
    grown = grow({"depth_up_scale": {"model": "base", "remove": 1}}, base=folder)
    assert read_config(grown)["rope_parameters"] == before


def test_stack_of_all_layers_leaves_the_config_as_it_was(base: Base, grow: Grow) -> None:
    folder = base(GEMMA2)
    same = grow({"stack": [{"model": "base", "layers": [0, GEMMA2.depth]}]}, base=folder)
    assert read_config(same) == read_config(folder)
