"""What the losses hold, and what they leave out: every tensor that is made is looked at."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tensorsurgeon.trainer.losses import linear_cross_entropy, token_log_probs
from tests.trainer.losses import reference

N, D, V, CHUNK = 512, 8, 1000, 32


class Watch(TorchDispatchMode):
    """Remembers the largest tensor that any operator gave, and how often each one ran."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.ran: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(given) if isinstance(t, Tensor)]
        self.largest = max([self.largest, *sizes])
        name = func.overloadpacket.__name__
        self.ran[name] = self.ran.get(name, 0) + 1
        return given


@pytest.fixture
def head() -> reference.Head:
    return reference.draw(N, D, V, masked=0.0).to(torch.float32)


def run(function: Callable[..., Tensor], head: reference.Head, **how: Any) -> Watch:
    with Watch() as watch:
        loss = function(head.hidden, head.weight, head.labels, **how).sum()
        if loss.requires_grad:
            loss.backward()
    return watch


@pytest.mark.parametrize("function", [linear_cross_entropy, token_log_probs])
def test_no_tensor_is_larger_than_a_chunk_of_logits(
    function: Callable[..., Tensor], head: reference.Head
) -> None:
    watch = run(function, head, chunk=CHUNK)
    assert watch.largest == CHUNK * V
    plain = run(
        lambda h, w, y: reference.losses(reference.Head(hidden=h, weight=w, labels=y)), head
    )
    assert plain.largest == N * V  # so the watch would have seen it


def test_logits_are_computed_once_though_there_are_gradients(head: reference.Head) -> None:
    ran = run(linear_cross_entropy, head, chunk=CHUNK).ran
    chunks = N // CHUNK
    assert ran["mm"] == 2 * chunks  # logits, and the gradient of the hidden states
    assert ran["addmm_"] == chunks  # the gradient of the weight


def test_a_frozen_head_costs_nothing_on_the_way_back(head: reference.Head) -> None:
    head.weight.requires_grad_(False)
    for function in (linear_cross_entropy, token_log_probs):
        assert "addmm_" not in run(function, head, chunk=CHUNK).ran
    assert head.weight.grad is None
    assert head.hidden.grad is not None


def test_frozen_hidden_states_cost_nothing_on_the_way_back(head: reference.Head) -> None:
    head.hidden.requires_grad_(False)
    assert run(linear_cross_entropy, head, chunk=CHUNK).ran["mm"] == N // CHUNK
    assert head.hidden.grad is None
    assert head.weight.grad is not None


def test_without_gradients_only_the_logits_are_multiplied(head: reference.Head) -> None:
    with torch.no_grad():
        ran = run(linear_cross_entropy, head, chunk=CHUNK).ran
    assert (ran["mm"], "addmm_" in ran, "index_select" in ran) == (N // CHUNK, False, True)


def test_rows_without_a_label_are_never_multiplied(head: reference.Head) -> None:
    head.labels[: N - CHUNK] = -100
    assert run(linear_cross_entropy, head, chunk=CHUNK).ran["mm"] == 2
