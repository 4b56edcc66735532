"""DPO against a float64 computation of the paper's formula, and its laws."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tensorsurgeon.trainer.losses import IGNORED, token_log_probs
from tensorsurgeon.trainer.preference import document_sums, dpo_loss
from tests.trainer.losses import reference

nats = st.floats(-300, 0)
beta = st.floats(0.01, 1)


def of(*sums: float) -> list[Tensor]:
    return [torch.tensor([s], dtype=torch.float64) for s in sums]


@given(nats, nats, nats, nats, beta, st.floats(0, 0.49))
def test_the_loss_is_the_papers(
    a: float, b: float, c: float, d: float, beta: float, smoothing: float
) -> None:
    h = beta * ((a - c) - (b - d))

    def softplus(x: float) -> float:  # -log(sigmoid(-x)), without overflow
        return max(x, 0) + math.log1p(math.exp(-abs(x)))

    expected = (1 - smoothing) * softplus(-h) + smoothing * softplus(h)
    found = dpo_loss(*of(a, b, c, d), beta=beta, label_smoothing=smoothing)
    assert found.loss.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert found.margin.item() == pytest.approx(h, rel=1e-12, abs=1e-12)
    assert found.accuracy.item() == float(h > 0)


def test_the_gradient_is_the_papers() -> None:
    """Rafailov et al. 2023, section 4: pairs are weighted by sigmoid(-h)."""
    sums = [torch.randn(9, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    found = dpo_loss(*sums, beta=0.3)
    gradients = torch.autograd.grad(found.loss, sums)
    h = 0.3 * ((sums[0] - sums[2]) - (sums[1] - sums[3]))
    weight = 0.3 * torch.sigmoid(-h)
    for gradient, expected in zip(gradients, (-weight, weight, weight, -weight), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)
    assert not found.margin.requires_grad
    assert not found.accuracy.requires_grad


def test_before_training_the_loss_is_log_two_a_pair_and_nothing_is_correct() -> None:
    sums = [torch.full((5,), -20.0), torch.full((5,), -30.0)]
    found = dpo_loss(*sums, *sums, beta=0.1)
    assert found.loss.item() == pytest.approx(5 * math.log(2))
    assert (found.margin.item(), found.accuracy.item()) == (0, 0)


def test_results_of_batches_add_up_to_that_of_all() -> None:
    sums = torch.randn(4, 10, dtype=torch.float64)
    whole = dpo_loss(*sums, beta=0.5)
    parts = [dpo_loss(*part, beta=0.5) for part in (sums[:, :3], sums[:, 3:])]
    for name in ("loss", "margin", "accuracy"):
        added = sum(getattr(part, name) for part in parts)
        assert getattr(whole, name).item() == pytest.approx(float(added), rel=1e-12)


@given(st.lists(st.integers(0, 6), max_size=30), st.integers(0, 7))
def test_each_document_gets_the_sum_of_its_tokens_and_padding_none(
    documents: list[int], number: int
) -> None:
    values = torch.randn(len(documents), dtype=torch.float64, requires_grad=True)
    sums = document_sums(values, torch.tensor(documents, dtype=torch.int32), number)
    for document in range(number):
        own = [v for v, d in zip(values.tolist(), documents, strict=True) if d == document]
        assert sums[document].item() == pytest.approx(sum(own), abs=1e-12)
    (gradient,) = torch.autograd.grad(sums.sum(), values) if documents else (values,)
    expected = [float(d < number) for d in documents]
    assert gradient.tolist() == expected


def test_a_pair_from_hidden_states_to_gradients_is_as_computed_directly() -> None:
    head = reference.draw(20, 6, 30, masked=0.4).to(torch.float64)
    documents = torch.tensor([0] * 6 + [1] * 5 + [2] * 4 + [3] * 3 + [4] * 2)
    head.labels[-2:] = IGNORED
    before = torch.randn(4, dtype=torch.float64)

    def loss(log_probs: Tensor) -> Tensor:
        chosen, rejected = document_sums(log_probs, documents, 4).view(2, 2).T
        return dpo_loss(chosen, rejected, *before.view(2, 2).T, beta=0.4).loss

    ours = loss(token_log_probs(head.hidden, head.weight, head.labels, chunk=7))
    each = [-reference.losses(head)[documents == i].sum() for i in range(4)]
    h = [0.4 * (each[i] - before[i] - each[i + 1] + before[i + 1]) for i in (0, 2)]
    theirs = torch.log1p(torch.exp(-h[0])) + torch.log1p(torch.exp(-h[1]))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        reference.gradients(ours, head), reference.gradients(theirs, head), rtol=1e-11, atol=1e-12
    )
