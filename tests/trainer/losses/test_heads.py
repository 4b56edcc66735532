"""The loss is of the model's own logits, for the families that do something to them."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tensorsurgeon.trainer.losses import linear_cross_entropy, token_log_probs
from tests.trainer.losses import models

HEADS = {
    "llama": ({}, {}),
    "gemma2": ({"final_logit_softcapping": 2.5}, {"softcap": 2.5}),
    "cohere": ({"logit_scale": 0.0625}, {"scale": 0.0625}),
    "granite": ({"logits_scaling": 8.0}, {"scale": 1 / 8.0}),
}


@pytest.fixture(params=HEADS)
def case(request: pytest.FixtureRequest) -> tuple[Any, dict[str, float], Tensor, Tensor]:
    changes, options = HEADS[request.param]
    model = models.model(models.config(request.param, **changes), "eager")
    tokens = torch.randint(3, models.VOCABULARY, (2, 20))
    return model, options, tokens[:, :-1], tokens[:, 1:].flatten()


def test_the_loss_and_its_gradients_are_those_of_the_models_logits(
    case: tuple[Any, dict[str, float], Tensor, Tensor],
) -> None:
    model, options, tokens, labels = case
    parameters = list(model.parameters())
    theirs = functional.cross_entropy(model(tokens).logits.flatten(0, 1), labels, reduction="sum")
    hidden = model.model(tokens).last_hidden_state.flatten(0, 1)
    ours = linear_cross_entropy(hidden, model.lm_head.weight, labels, chunk=7, **options)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    for a, b in zip(*(torch.autograd.grad(x, parameters) for x in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_log_probabilities_are_those_of_the_models_logits(
    case: tuple[Any, dict[str, float], Tensor, Tensor],
) -> None:
    model, options, tokens, labels = case
    with torch.no_grad():
        theirs = torch.log_softmax(model(tokens).logits.flatten(0, 1), 1)
        hidden = model.model(tokens).last_hidden_state.flatten(0, 1)
        ours = token_log_probs(hidden, model.lm_head.weight, labels, chunk=7, **options)
    torch.testing.assert_close(ours, theirs.gather(1, labels[:, None])[:, 0], rtol=1e-5, atol=1e-5)
