"""The copies of a state are its values at one moment, in memory that is there already."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from tensorsurgeon.trainer.staging import Staging
from tests.trainer.saving.ranks import run
from tests.trainer.saving.states import state_of, steps_of


def tensors_in(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state.to_local() if isinstance(state, DTensor) else state]
    inside = state.values() if isinstance(state, dict) else state
    return [tensor for part in inside for tensor in tensors_in(part)]


def places_of(state: Any) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors_in(state)]


def copy_twice() -> list[Any]:
    staging = Staging()
    first = state_of(1)
    copies = staging.copy(first)
    before = steps_of(copies), places_of(copies)
    for tensor in tensors_in(first):
        tensor.fill_(-7)
    unchanged = steps_of(copies)
    again = staging.copy(state_of(2))
    shared = set(places_of(first)) & set(places_of(again)) if dist.get_rank() == 0 else set()
    after = steps_of(again), places_of(again) == before[1]
    staging.close()
    return [before[0], unchanged, *after, shared]


def test_second_copy_is_made_in_the_memory_of_the_first() -> None:
    for told in run(2, copy_twice):
        assert told == [{1.0}, {1.0}, {2.0}, True, set()]


def storages() -> list[tuple[int, int]]:
    copies = Staging().copy(state_of(1, rows=5))
    return [(t.untyped_storage().nbytes(), t.nbytes) for t in tensors_in(copies)]


def test_copy_has_no_padding_of_uneven_shards() -> None:
    for told in run(2, storages):
        assert all(stored == wanted for stored, wanted in told)


def test_what_is_no_tensor_is_told_anew_at_each_copy() -> None:
    staging = Staging()
    one = staging.copy({"n": 1, "t": (torch.ones(2), "a")})
    two = staging.copy({"n": 2, "t": (torch.zeros(2), "b")})
    assert (one["n"], two["n"], one["t"][1], two["t"][1]) == (1, 2, "a", "b")
    assert not two["t"][0].any()
