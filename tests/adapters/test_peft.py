"""Adapters that PEFT has made: what comes out is what PEFT computes with them."""

from pathlib import Path

import numpy as np
import pytest

from tensorsurgeon import api
from tests.adapters.cases import CASES
from tests.adapters.folders import RECIPE
from tests.cli.checkpoints import Tensors, read_tensors
from tests.methods.numerics import float64, relative_error

TOKENS = [[1, 5, 9, 2, 11, 3, 7, 0]]


@pytest.fixture(scope="session")
def results(peft: Path) -> Path:
    """Every case's folder with the result of its recipe, in float32."""
    for name in CASES:
        recipe = peft / name / "recipe.yaml"
        recipe.write_text(RECIPE.replace("path: ./out", "path: ./out, dtype: float32"))
        api.apply(api.plan(recipe), threads=1)
    return peft


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.parted])
def test_tensors_are_those_of_a_merge_in_float32(name: str, results: Path) -> None:
    found, right = read_tensors(results / name / "out"), read_tensors(results / name / "merged")
    assert found.keys() == right.keys()
    for tensor, values in right.items():
        assert relative_error(found[tensor], float64(values)) < 1e-6, tensor


@pytest.mark.parametrize("name", CASES)
def test_transformers_computes_with_the_result_what_peft_does_with_the_adapter(
    name: str, results: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = results / name
    model, told = AutoModelForCausalLM.from_pretrained(
        folder / "out", dtype=torch.float32, output_loading_info=True
    )
    assert not any(told.values())
    with torch.no_grad():
        logits = model.eval()(torch.tensor(TOKENS)).logits.numpy()
    assert relative_error(logits, float64(np.load(folder / "logits.npy"))) < 3e-6


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.parted])
def test_head_that_was_tied_gets_a_tensor_of_its_own(name: str, results: Path) -> None:
    def ends(tensors: Tensors) -> tuple[bytes, bytes]:
        embedding, head = tensors["model.embed_tokens.weight"], tensors["lm_head.weight"]
        return embedding.tobytes(), head.tobytes()

    base = read_tensors(results / name / "base")["model.embed_tokens.weight"].tobytes()
    embedding, head = ends(read_tensors(results / name / "out"))
    changed = {
        "tied_embedding": (True, False),
        "tied_saved": (True, False),
        "tied_head": (False, True),
        "kept_tied": (True, True),
    }
    assert (embedding != base, head != base) == changed[name]
    assert (embedding == head) is (name == "kept_tied")
