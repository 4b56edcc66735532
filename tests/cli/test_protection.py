"""What a run must never overwrite, and numbers it must never make up."""

import math
from pathlib import Path

import pytest

from tensorsurgeon import api
from tensorsurgeon.errors import PlanError
from tensorsurgeon.execute import run_plan
from tests.cli.checkpoints import (
    file_bytes,
    llama_tensors,
    tiny_llama,
    write_checkpoint,
)
from tests.cli.conftest import Refused, WriteRecipe, listing


def test_source_of_the_tokenizer_alone_is_not_overwritten(
    models: Path, recipe: WriteRecipe, refused: Refused
) -> None:
    path = recipe("models: {a: ./a, b: ./b}\nresult: a\noutput: {tokenizer: b}\n")
    message = refused("apply", path, "-o", models / "b", "--overwrite", code=6)
    assert f"lies in, around or at the source {models / 'b'}" in message


def test_folder_that_holds_the_recipe_is_not_overwritten(
    models: Path, recipe: WriteRecipe, refused: Refused
) -> None:
    out = tiny_llama(models / "out")
    path = out / "recipe.yaml"
    path.write_bytes(recipe("models: {a: ../a}\nresult: a\n").read_bytes())
    message = refused("apply", path, "-o", out, "--overwrite", code=6)
    assert f"holds the recipe {path}" in message


@pytest.mark.parametrize("inside", ["folder", "no weights"])
def test_folder_that_is_no_checkpoint_is_not_overwritten(
    inside: str, models: Path, recipe: WriteRecipe, refused: Refused
) -> None:
    out = tiny_llama(models / "out")
    if inside == "folder":
        (out / "notes").mkdir()
    else:
        (out / "model.safetensors").unlink()
    path = recipe("models: {a: ./a}\nresult: a\n")
    assert "is not replaced" in refused("apply", path, "-o", out, "--overwrite", code=6)


def test_folder_that_appears_during_a_run_is_kept(models: Path, recipe: WriteRecipe) -> None:
    plan = api.plan(recipe("models: {a: ./a}\nresult: a\n"), output=models / "out")
    api.check(plan)
    kept = file_bytes(tiny_llama(models / "out", seed=9))
    before = listing(models)
    with pytest.raises(PlanError, match="is already there"):
        run_plan(plan, models / "out", threads=1)
    assert file_bytes(models / "out") == kept
    assert listing(models) == before


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_slerp_of_a_tensor_that_is_not_finite_is_refused_by_name(
    value: float, tmp_path: Path, recipe: WriteRecipe, refused: Refused
) -> None:
    tiny_llama(tmp_path / "a")
    tensors = llama_tensors(seed=1)
    tensors["model.norm.weight"][3] = value
    write_checkpoint(tmp_path / "b", tensors)
    path = recipe("models: {a: ./a, b: ./b}\nresult: {slerp: {models: [a, b], t: 0.5}}\n")
    message = refused("apply", path, "-q", "-o", tmp_path / "out", code=5)
    counted = "1 NaN" if math.isnan(value) else "1 infinite value"
    assert f"tensor 'model.norm.weight': b:model.norm.weight has {counted}, so that" in message


def test_zero_that_matches_nothing_is_refused_though_another_one_matches(
    models: Path, recipe: WriteRecipe, refused: Refused
) -> None:
    zero = "[self_attn.o_proj.*, mlp.donw_proj.*]"
    path = recipe(
        f"models: {{a: ./a}}\nresult: {{block_expansion: {{model: a, every: 1, zero: {zero}}}}}\n"
    )
    message = refused("apply", path, "-o", models / "out", code=4)
    assert "nothing in the layers of 'a' matches mlp.donw_proj.*" in message
