"""The same bytes whatever number of threads made them, in whatever room."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tensorsurgeon import api
from tensorsurgeon.plan import Plan
from tensorsurgeon.specs import SPAN
from tests.cli.checkpoints import Tensors
from tests.methods.cases import ONE_OF_EACH, Case
from tests.methods.folders import Workbench, layer, tiny_models

Run = Callable[[Plan], Path | None]

WAYS: dict[str, Run] = {
    "two threads": lambda plan: api.apply(plan, threads=2, overwrite=True).path,
    "seven threads": lambda plan: api.apply(plan, threads=7, overwrite=True).path,
    "room for one thread": lambda plan: within(plan, api.memory_for(plan, 1)),
    "room for three": lambda plan: within(plan, api.memory_for(plan, 3)),
}


def within(plan: Plan, budget: int) -> Path | None:
    return api.apply(plan, threads=4, max_memory=budget, overwrite=True).path


def weights(folder: Path | None) -> bytes:
    """All tensors of a checkpoint in one file, as they are stored."""
    assert folder is not None
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def models() -> dict[str, Tensors]:
    """A base and fine-tunes of it, in tensors of less than a span and of more."""
    names = ["base", *(f"m{i}" for i in range(1, 6))]
    tiny = tiny_models(names, dtype="BF16")
    long = {"mlp.long": (2 * SPAN + 77,)}
    return {
        name: tensors | layer(long, dtype="BF16", seed=seed)
        for seed, (name, tensors) in enumerate(tiny.items())
    }


@pytest.mark.parametrize("case", ONE_OF_EACH.values(), ids=ONE_OF_EACH)
def test_threads_and_room_change_no_byte(
    case: Case, models: dict[str, Tensors], bench: Workbench
) -> None:
    plan = bench.planned(case.expression, models)
    alone = weights(api.apply(plan, threads=1).path)
    for way, run in WAYS.items():
        assert weights(run(plan)) == alone, way
