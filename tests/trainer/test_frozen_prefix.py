"""Layers that are said to run without gradients do, whatever is trained of a real model."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tensorsurgeon.checkpoint import open_checkpoint
from tensorsurgeon.trainer.groups import Treatment, first_trained
from tensorsurgeon.trainer.model import LanguageModel, build_model
from tensorsurgeon.trainer.setup import describe
from tensorsurgeon.trainer.slices import load_weights
from tests.families.models import DECODERS, GEMMA4, Family

TOKENS = torch.arange(20)[None] * 7 % 50
CPU = torch.device("cpu")

NAMED = ("llama", "gpt-neox", "gpt2", "cohere", "gpt-oss", "gemma3-multimodal")
FAMILIES = {
    family.name: family
    for family in (
        *(family for family in DECODERS if family.name in NAMED),
        GEMMA4,
        Family(name="bloom", config_class="BloomConfig"),
        Family(name="opt", config_class="OPTConfig", settings={"word_embed_proj_dim": 16}),
        Family(
            name="bart",
            config_class="BartConfig",
            settings={"d_model": 32, "decoder_layers": 5, "decoder_ffn_dim": 48},
        ),
    )
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = FAMILIES[request.param].save(tmp_path_factory.mktemp(request.param))
    checkpoint = open_checkpoint(folder)
    found = build_model(checkpoint, attention="eager")
    load_weights(found, checkpoint, CPU)
    return found


def first_with_gradients(model: LanguageModel) -> int:
    """The first layer that gets or has what needs a gradient, as autograd itself sees it."""
    needing: list[int] = []

    def note(index: int, layer: torch.nn.Module, args: Any, kwargs: Any) -> None:
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if any(value.requires_grad for value in (*given, *layer.parameters())):
            needing.append(index)

    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, args, kwargs, index=index: note(index, layer, args, kwargs),
            with_kwargs=True,
        )
        for index, layer in enumerate(model.layers)
    ]
    model.module(TOKENS, use_cache=False)
    for hook in hooks:
        hook.remove()
    return min(needing, default=len(model.layers))


def told(model: LanguageModel, trained: set[str]) -> int:
    """What the groups say of the same."""
    treatments = {
        name: Treatment(group="", learning_rate=1.0, weight_decay=0.0, frozen=name not in trained)
        for name, _ in model.parameters()
    }
    return first_trained(describe(model), treatments, len(model.layers))


def test_no_layer_before_the_first_trained_one_has_a_gradient(model: LanguageModel) -> None:
    names = [name for name, _ in model.parameters()]
    outside = [name for name in names if model.layer_of(name) is None]
    within = next(name for name in names if model.layer_of(name) == 3)
    for trained in [{name} for name in outside] + [{name, within} for name in outside]:
        for name, parameter in model.parameters():
            parameter.requires_grad_(name in trained)
        assert told(model, trained) <= first_with_gradients(model), trained


def test_the_last_norm_and_the_head_need_no_layers_gradients(model: LanguageModel) -> None:
    tied = set(model.tied.values())
    late = {
        name
        for name, _ in model.parameters()
        if model.layer_of(name) is None
        and name not in tied
        and any(part in name for part in ("lm_head", "model.norm", "ln_f", "final_layer"))
    }
    assert told(model, late) == len(model.layers)
