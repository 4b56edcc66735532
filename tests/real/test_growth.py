"""What transformers makes of a model that was grown: it loads, and computes what it should."""

import copy
import os
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.conftest import ROOT
from tests.real.conftest import Merge

DEPTH = 30
TOKENS = 64


def load(folder: Path) -> Any:
    """The model in float32, refused if a weight is missing, left over or of another shape."""
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    return model


def stacked_by_hand(folder: Path, order: list[int]) -> Any:
    """The model whose layers are copies of those of another, in the order given."""
    model = load(folder)
    layers = [copy.deepcopy(model.model.layers[source]) for source in order]
    for place, layer in enumerate(layers):
        layer.self_attn.layer_idx = place
    model.model.layers = torch.nn.ModuleList(layers)
    model.config.num_hidden_layers = len(layers)
    return model


def logits(model: Any, text: torch.Tensor) -> torch.Tensor:
    """(1, tokens, vocabulary), without a cache."""
    with torch.inference_mode():
        return model(text, use_cache=False).logits


@pytest.fixture(scope="module")
def text(smollm2: Path) -> torch.Tensor:
    """(1, tokens) token ids of the demo's text."""
    words = (ROOT / "recipes" / "demo.txt").read_text(encoding="ascii")
    return AutoTokenizer.from_pretrained(smollm2)(words, return_tensors="pt").input_ids[:, :TOKENS]


def test_depth_up_scaling_equals_the_module_list_stacked_by_hand(
    merge: Merge, smollm2: Path, text: torch.Tensor
) -> None:
    grown = load(merge({"depth_up_scale": {"model": "base", "remove": 8}}))
    order = [*range(DEPTH - 8), *range(8, DEPTH)]
    assert grown.config.num_hidden_layers == len(grown.model.layers) == 44
    assert torch.equal(logits(grown, text), logits(stacked_by_hand(smollm2, order), text))


def test_stack_takes_layers_from_both_models_in_the_order_given(
    merge: Merge, smollm2: Path, smollm2_tuned: Path, text: torch.Tensor
) -> None:
    slices = [("base", [0, 3]), ("tuned", [10, 12]), ("base", [1, 2]), ("tuned", [29, 30])]
    stack = [{"model": model, "layers": layers} for model, layers in slices]
    grown = load(merge({"stack": stack}))

    # The embeddings are the first slice's model's, the last norm is the last slice's.
    expected = stacked_by_hand(smollm2, [0, 1, 2, 0, 0, 1, 0])
    tuned = load(smollm2_tuned)
    for place, source in {3: 10, 4: 11, 6: 29}.items():
        expected.model.layers[place].load_state_dict(tuned.model.layers[source].state_dict())
    expected.model.norm.load_state_dict(tuned.model.norm.state_dict())
    assert torch.equal(logits(grown, text), logits(expected, text))


def test_grown_model_keeps_its_embeddings_tied(merge: Merge) -> None:
    grown = load(merge({"depth_up_scale": {"model": "base", "remove": 8}}))
    assert grown.config.tie_word_embeddings
    assert grown.lm_head.weight is grown.model.embed_tokens.weight


def test_block_expansion_leaves_the_logits_as_they_were_bit_for_bit(
    merge: Merge, smollm2: Path, text: torch.Tensor
) -> None:
    grown = load(merge({"block_expansion": {"model": "base", "every": 5}}))
    assert grown.config.num_hidden_layers == 36
    assert torch.equal(logits(grown, text), logits(load(smollm2), text))


def test_block_expansion_copies_all_but_the_output_projections(merge: Merge) -> None:
    layers = load(merge({"block_expansion": {"model": "base", "every": 5}})).model.layers
    for new in range(5, 36, 6):
        copied, source = layers[new].state_dict(), layers[new - 1].state_dict()
        for name, weight in source.items():
            zeroed = name in ("self_attn.o_proj.weight", "mlp.down_proj.weight")
            expected = torch.zeros_like(weight) if zeroed else weight
            assert torch.equal(copied[name], expected), f"layer {new}: {name}"


def test_tokenizer_of_a_merge_is_that_of_its_first_model(merge: Merge, smollm2: Path) -> None:
    merged = merge({"linear": {"models": ["base", "tuned"]}})
    sentence = "The tower's light said its own name."
    expected = AutoTokenizer.from_pretrained(smollm2)(sentence).input_ids
    assert AutoTokenizer.from_pretrained(merged)(sentence).input_ids == expected
