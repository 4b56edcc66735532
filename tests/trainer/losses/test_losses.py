"""The chunked losses and their gradients against a float64 computation of everything at once."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tensorsurgeon.trainer.losses import (
    IGNORED,
    linear_cross_entropy,
    rows_per_chunk,
    token_log_probs,
)
from tests.trainer.losses import reference
from tests.trainer.losses.reference import Head

Loss = Callable[..., Tensor]

ON_GPU = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
)


def loss_of(function: Loss, head: Head, **how: object) -> Tensor:
    return function(
        head.hidden,
        head.weight,
        head.labels,
        bias=head.bias,
        softcap=head.softcap,
        scale=head.scale,
        **how,
    )


@st.composite
def heads(draw: st.DrawFn) -> Head:
    return reference.draw(
        draw(st.integers(0, 20)),
        draw(st.integers(1, 8)),
        draw(st.integers(1, 40)),
        masked=draw(st.sampled_from([0.0, 0.3, 1.0])),
        bias=draw(st.booleans()),
        softcap=draw(st.sampled_from([None, 1.5])),
        scale=draw(st.sampled_from([None, 0.25, 3.0])),
        seed=draw(st.integers(0, 2**31)),
    ).to(torch.float64)


@settings(max_examples=150, deadline=None)
@given(heads(), st.integers(1, 25))
def test_the_sum_of_losses_and_its_gradients_are_exact_whatever_the_chunk(
    head: Head, chunk: int
) -> None:
    ours, theirs = loss_of(linear_cross_entropy, head, chunk=chunk), reference.losses(head).sum()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        reference.gradients(0.7 * ours, head),
        reference.gradients(0.7 * theirs, head),
        rtol=1e-11,
        atol=1e-11,
    )


@settings(max_examples=150, deadline=None)
@given(heads(), st.integers(1, 25))
def test_log_probabilities_and_their_gradients_are_exact_whatever_the_chunk(
    head: Head, chunk: int
) -> None:
    ours, theirs = loss_of(token_log_probs, head, chunk=chunk), -reference.losses(head)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    outer = torch.sin(torch.arange(len(ours), dtype=torch.float64))  # each token its own weight
    torch.testing.assert_close(
        reference.gradients((ours * outer).sum(), head),
        reference.gradients((theirs * outer).sum(), head),
        rtol=1e-11,
        atol=1e-11,
    )


@pytest.mark.parametrize("device", ["cpu", ON_GPU])
@pytest.mark.parametrize("function", [linear_cross_entropy, token_log_probs])
@pytest.mark.parametrize(("dtype", "unit"), [(torch.float32, 2**-21), (torch.bfloat16, 2**-8)])
@pytest.mark.parametrize(
    "kind", [{}, {"bias": True, "softcap": 5.0, "scale": 0.5}], ids=["plain", "bent"]
)
def test_fewer_bits_are_off_by_their_roundings_and_no_more(
    function: Loss, dtype: torch.dtype, unit: float, kind: dict[str, float], device: str
) -> None:
    # The unit of float32 allows for sums of 24 products; bfloat16's are summed in float32.
    head = reference.draw(64, 24, 300, **kind).to(dtype, device)
    exact = head.to(torch.float64)
    expected = reference.losses(exact).sum()
    found = loss_of(function, head, chunk=10)
    assert found.dtype == torch.float32
    total = found.sum() if function is linear_cross_entropy else -found.sum()
    bounds = reference.bounds(exact, unit)
    assert abs(total.item() - expected.item()) <= bounds.loss
    ours, theirs = reference.gradients(total, head), reference.gradients(expected, exact)
    for g, leaf, expected_g, bound in zip(ours, head.leaves, theirs, bounds.gradients, strict=True):
        assert g.dtype == leaf.dtype
        assert ((g.double().cpu() - expected_g).abs() <= bound).all()


def test_the_gradient_of_the_weight_is_summed_in_float32() -> None:
    """In bfloat16 the sum would stop to grow at 256 equal terms, here it has 1024."""
    hidden = torch.ones(1024, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    linear_cross_entropy(hidden, weight, torch.zeros(1024, dtype=torch.int64), chunk=1).backward()
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == [-512, 512]


def test_logits_beyond_what_exp_can_hold_give_finite_losses() -> None:
    head = reference.draw(8, 4, 9).to(torch.float32)
    large = Head(**vars(head) | {"scale": 1e4})
    found = loss_of(linear_cross_entropy, large)
    expected = reference.losses(large.to(torch.float64)).sum()
    torch.testing.assert_close(found.item(), expected.item(), rtol=1e-6, atol=0)
    assert all(g.isfinite().all() for g in reference.gradients(found, large))


@pytest.mark.parametrize("function", [linear_cross_entropy, token_log_probs])
def test_without_any_label_the_loss_is_zero_and_so_are_its_gradients(function: Loss) -> None:
    head = reference.draw(6, 3, 5, masked=1.0).to(torch.float32)
    found = loss_of(function, head).sum()
    assert found.item() == 0
    assert [float(g.abs().sum()) for g in reference.gradients(found, head)] == [0, 0]


def test_what_stands_at_masked_positions_does_not_matter_even_if_it_is_no_number() -> None:
    head = reference.draw(9, 3, 5).to(torch.float32)
    spoilt = head.hidden.detach().clone()
    spoilt[head.labels == IGNORED] = float("nan")
    changed = Head(**vars(head) | {"hidden": spoilt.requires_grad_()})
    before, after = loss_of(linear_cross_entropy, head), loss_of(linear_cross_entropy, changed)
    assert torch.equal(before, after)
    for a, b in zip(
        reference.gradients(before, head), reference.gradients(after, changed), strict=True
    ):
        assert torch.equal(a, b)


def test_a_tied_weight_gets_the_gradients_of_both_its_uses() -> None:
    weight = torch.randn(11, 4, dtype=torch.float64, requires_grad=True)
    tokens, labels = torch.randint(11, (2, 7))
    ours = linear_cross_entropy(torch.tanh(weight[tokens]), weight, labels, chunk=3)
    theirs = reference.losses(
        Head(hidden=torch.tanh(weight[tokens]), weight=weight, labels=labels)
    ).sum()
    a, b = (torch.autograd.grad(loss, weight)[0] for loss in (ours, theirs))
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("function", [linear_cross_entropy, token_log_probs])
def test_a_weight_of_another_dtype_is_rounded_to_that_of_the_hidden_states(
    function: Loss,
) -> None:
    head = reference.draw(16, 4, 20).to(torch.bfloat16)
    master = head.weight.detach().float().requires_grad_()
    mixed = Head(**vars(head) | {"weight": master})
    same, other = loss_of(function, head).sum(), loss_of(function, mixed).sum()
    assert torch.equal(same, other)
    found = reference.gradients(other, mixed)
    assert [g.dtype for g in found] == [torch.bfloat16, torch.float32]
    assert torch.equal(found[1].bfloat16(), reference.gradients(same, head)[1])


def test_compiled_arithmetic_gives_the_same_loss_and_gradients() -> None:
    head = reference.draw(50, 8, 70, softcap=4.0, scale=0.5).to(torch.float32)
    eager, compiled = (
        loss_of(linear_cross_entropy, head, chunk=16, compiled=c) for c in (False, True)
    )
    torch.testing.assert_close(eager, compiled, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        reference.gradients(eager, head), reference.gradients(compiled, head), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("vocabulary", [128, 32_000, 49_152, 128_256, 262_144])
def test_a_chunk_is_whole_tiles_within_its_memory(vocabulary: int) -> None:
    for device, mebibytes in (("cpu", 32), ("cuda", 256)):
        rows = rows_per_chunk(vocabulary, torch.device(device))
        assert rows % 64 == 0
        assert rows == 64 or rows * vocabulary * 4 <= mebibytes << 20
