"""A training that is interrupted and goes on is, bit for bit, the one that is not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tensorsurgeon.errors import ResumeError
from tensorsurgeon.trainer.saving import Saver, training_state
from tensorsurgeon.trainer.staging import state_bytes
from tests.trainer.saving.ranks import outcomes, run
from tests.trainer.saving.training import full, resume, sharded, take_step, train


def same(one: Any, other: Any) -> bool:
    """Whether two states have the same names and bits."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return bool(one == other)


@pytest.mark.parametrize("frozen_embedding", [False, True])
@pytest.mark.parametrize("world", [1, 2])
def test_interrupted_training_has_the_losses_of_one_that_is_not(
    world: int, frozen_embedding: bool, tmp_path: Path
) -> None:
    (whole, at_end), *_ = run(world, train, tmp_path / "whole", 20, 0, frozen_embedding)
    assert len(set(whole)) == 20
    (before, _), *_ = run(world, train, tmp_path / "parts", 10, 5, frozen_embedding)
    (after, resumed), *_ = run(world, train, tmp_path / "parts", 20, 0, frozen_embedding)
    assert before + after == whole
    assert same(resumed, at_end)


def loaded(folder: Path) -> dict[str, Any]:
    """The newest checkpoint's state as this number of ranks loads it."""
    model, optimizer = sharded()
    with Saver(folder, keep=2) as saver:
        assert resume(saver, model, optimizer) == 3
    return full(training_state(model, optimizer))


@pytest.mark.parametrize(("saving", "loading"), [(1, 2), (2, 1), (2, 3)])
def test_checkpoint_of_some_ranks_is_loaded_by_others_bit_for_bit(
    saving: int, loading: int, tmp_path: Path
) -> None:
    (_, saved), *_ = run(saving, train, tmp_path, 3, 3)
    assert all(same(state, saved) for state in run(loading, loaded, tmp_path))


def bytes_of_states() -> list[tuple[int, int]]:
    """Of a state, and what its trained parameters and the buffer make up; of two trainings."""
    found = []
    for frozen_embedding in (False, True):
        model, optimizer = sharded(frozen_embedding=frozen_embedding)
        trained = [p for p in model.parameters() if p.requires_grad]
        each = [3 * p.numel() + 1 for p in trained]  # itself, its moments and step count
        found.append((state_bytes(training_state(model, optimizer)), 4 * (sum(each) + 1)))
    return found


def test_state_has_the_bytes_of_what_is_trained_alone() -> None:
    ((some, most),) = run(1, bytes_of_states)
    assert some[0] == some[1]
    assert most[0] == most[1] < some[1]


def names_and_counts() -> tuple[set[str], set[str], set[float], list[float]]:
    model, optimizer = sharded()
    for step in range(3):
        take_step(model, optimizer, step)
    state = training_state(model, optimizer)
    counts = {float(v) for k, v in state["optimizer"].items() if k.endswith(".step")}
    rates = [group["lr"] for group in optimizer.param_groups]
    return set(state["model"]), set(state["optimizer"]), counts, rates


def test_state_has_a_tied_weight_once_and_nothing_of_frozen_parameters() -> None:
    ((weights, moments, counts, _),) = run(1, names_and_counts)
    assert "embedding.weight" in weights
    assert "head.weight" not in weights
    assert {"layers.1.1.weight", "scale"} <= weights
    assert "state.embedding.weight.exp_avg" in moments
    assert not any("layers.0." in name or "head" in name for name in weights | moments)
    assert counts == {3.0}


def state_before_the_first_step_is_looked_at(look: bool) -> list[str]:
    model, optimizer = sharded()
    if look:
        model.layers[1][1].bias.grad = gradient = torch.ones_like(model.layers[1][1].bias)
        state = full(training_state(model, optimizer))
        assert {float(v) for k, v in state["optimizer"].items() if k.endswith("step")} == {0.0}
        assert not any(v.any() for k, v in state["optimizer"].items())
        assert model.layers[1][1].bias.grad is gradient
        assert [group["lr"] for group in optimizer.param_groups] == [1e-2, 1e-3]
        optimizer.zero_grad()
    return [take_step(model, optimizer, step) for step in range(4)]


def test_looking_at_a_state_before_the_first_step_changes_no_loss() -> None:
    (looked,) = run(1, state_before_the_first_step_is_looked_at, True)
    (plain,) = run(1, state_before_the_first_step_is_looked_at, False)
    assert looked == plain


def load_into(folder: Path, extra: dict[str, Any]) -> None:
    with Saver(folder, keep=1) as saver:
        saved = saver.latest(print)
        assert saved
        saver.load(saved, extra)


def save_one(folder: Path) -> None:
    with Saver(folder, keep=1) as saver:
        saver.save(1, {"a": torch.ones(4), "n": {"count": torch.tensor(7)}}, {}, wait=True)


@pytest.mark.parametrize(
    ("state", "said"), [({"a": torch.ones(5)}, "ize"), ({"b": torch.ones(4)}, "b")]
)
def test_checkpoint_of_other_names_or_shapes_is_an_error_of_every_rank(
    state: dict[str, Any], said: str, tmp_path: Path
) -> None:
    run(1, save_one, tmp_path)
    for error in outcomes(2, load_into, tmp_path, state):
        assert isinstance(error, ResumeError)
        assert f"{tmp_path}/step-00000001: cannot be loaded: " in str(error)
        assert said in str(error)
