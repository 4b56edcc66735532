"""Averages of a training's checkpoints: which folders, and how much each counts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorsurgeon import api
from tensorsurgeon.checkpoint import matching_folders
from tensorsurgeon.errors import RecipeError
from tensorsurgeon.operators import CheckpointAverage
from tensorsurgeon.plan import Sum
from tensorsurgeon.recipe import Source
from tests.cli.checkpoints import llama_config, read_tensors, write_checkpoint
from tests.methods.folders import layer
from tests.methods.numerics import assert_rounded_once, float64
from tests.methods.references import Float64


def average(count: int, **parameters: Any) -> CheckpointAverage:
    checkpoints = tuple(Source(path=f"./step-{i}") for i in range(count))
    return CheckpointAverage.model_validate({"checkpoints": checkpoints, **parameters})


def shares(count: int, weights: str, **parameters: Any) -> Float64:
    return np.array(average(count, weights=weights, **parameters).coefficients().values)


COUNTS = st.integers(1, 40)
SHAPES = st.sampled_from(["uniform", "linear", "cosine", "minus_sqrt"])
RATES = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + np.cos(np.pi * x)) / 2,
    "minus_sqrt": lambda x: 1 - np.sqrt(x),
}


@given(count=COUNTS, weights=SHAPES)
def test_shares_are_none_below_zero_and_sum_up_to_one(count: int, weights: str) -> None:
    found = shares(count, weights)
    assert len(found) == count
    assert found.min() > 0
    assert abs(found.sum() - 1) < 1e-14


@given(count=COUNTS)
def test_linear_decay_is_the_uniform_average_to_the_bit(count: int) -> None:
    assert (shares(count, "linear") == shares(count, "uniform")).all()


@given(count=st.integers(2, 40), seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("weights", RATES)
def test_average_is_where_the_decayed_learning_rate_would_have_led(
    weights: str, count: int, seed: int
) -> None:
    """A training at a constant rate leaves checkpoints; the same updates are taken again."""
    updates = np.random.default_rng(seed).standard_normal((count - 1, 5))
    start = np.ones(5)
    checkpoints = start + np.concatenate([np.zeros((1, 5)), np.cumsum(updates, axis=0)])
    decayed = start.copy()
    for i, update in enumerate(updates, 1):
        decayed += RATES[weights](i / count) * update
    np.testing.assert_allclose(shares(count, weights) @ checkpoints, decayed, atol=1e-12)


@given(count=COUNTS, decay=st.floats(0.01, 0.999), seed=st.integers(0, 2**32 - 1))
def test_ema_is_what_its_recursion_gives(count: int, decay: float, seed: int) -> None:
    checkpoints = np.random.default_rng(seed).standard_normal((count, 5))
    running = checkpoints[0]
    for checkpoint in checkpoints[1:]:
        running = decay * running + (1 - decay) * checkpoint
    found = shares(count, "ema", decay=decay) @ checkpoints
    np.testing.assert_allclose(found, running, atol=1e-13)


def test_minus_sqrt_counts_the_oldest_of_four_half() -> None:
    expected = [0.5, np.sqrt(0.5) - 0.5, np.sqrt(0.75) - np.sqrt(0.5), 1 - np.sqrt(0.75)]
    np.testing.assert_allclose(shares(4, "minus_sqrt"), expected, rtol=1e-14)


@given(count=COUNTS, data=st.data(), weights=SHAPES)
def test_last_ones_count_as_if_there_were_no_others(
    count: int, data: st.DataObject, weights: str
) -> None:
    last = data.draw(st.integers(1, count))
    kept = average(count, weights=weights, last=last)
    assert [source.path for source in kept.checkpoints] == [
        f"./step-{i}" for i in range(count - last, count)
    ]
    assert kept.coefficients() == average(last, weights=weights).coefficients()


def runs(folder: Path, steps: list[int], *, dtype: str = "BF16") -> dict[int, Float64]:
    """Checkpoints `runs/step-N` with one tensor each; their values by N."""
    values = {}
    for step in steps:
        tensors = layer({"w": (30, 50)}, dtype=dtype, seed=step)
        write_checkpoint(folder / "runs" / f"step-{step}", tensors, llama_config(1))
        (tensor,) = tensors.values()
        values[step] = float64(tensor)
    return values


def recipe(folder: Path, expression: str) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(
        f"models:\n  average: {{checkpoint_average: {expression}}}\n"
        "result: average\noutput: {path: ./out}\n"
    )
    return file


STEPS = [9, 10, 100, 20, 30, 40, 50, 60, 70, 80, 90, 8]


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
@pytest.mark.parametrize(
    ("parameters", "weights", "last"),
    [
        ("weights: uniform", "uniform", 12),
        ("weights: minus_sqrt", "minus_sqrt", 12),
        ("weights: minus_sqrt, last: 5", "minus_sqrt", 5),
        ("weights: cosine", "cosine", 12),
    ],
)
def test_dozen_folders_are_averaged_in_the_order_of_their_numbers(
    parameters: str, weights: str, last: int, dtype: str, tmp_path: Path
) -> None:
    values = runs(tmp_path, STEPS, dtype=dtype)
    file = recipe(tmp_path, f'{{checkpoints: "runs/step-*", {parameters}}}')
    api.apply(api.plan(file))
    (found,) = read_tensors(tmp_path / "out").values()
    ordered = np.array([values[step] for step in sorted(STEPS)[-last:]])
    exact = np.tensordot(shares(last, weights), ordered, axes=1)
    assert_rounded_once(found, exact, 1e-15)


def test_checkpoints_are_read_once_and_a_few_more_take_hardly_more_memory(tmp_path: Path) -> None:
    runs(tmp_path, STEPS)
    few = api.plan(recipe(tmp_path, '{checkpoints: "runs/step-*", last: 2}'))
    many = api.plan(recipe(tmp_path, '"runs/step-*"'))
    assert (few.bytes_read, many.bytes_read) == (2 * 30 * 50 * 2, 12 * 30 * 50 * 2)
    assert isinstance(many.tensors[0].node, Sum)
    assert api.memory_for(many, 1) - api.memory_for(few, 1) < 100_000


def test_single_folder_is_copied(tmp_path: Path) -> None:
    runs(tmp_path, [5, 6])
    plan = api.plan(recipe(tmp_path, '{checkpoints: "runs/step-?", last: 1, weights: cosine}'))
    assert all(tensor.is_copied for tensor in plan.tensors)
    assert str(plan.tensors[0].node).startswith("./runs/step-6:")


def test_list_keeps_its_order_and_patterns_in_it_theirs(tmp_path: Path) -> None:
    runs(tmp_path, [1, 2, 10, 11])
    plan = api.plan(recipe(tmp_path, '[./runs/step-2, "runs/step-1?", runs/step-1]'))
    node = plan.tensors[0].node
    assert isinstance(node, Sum)
    assert [str(inner).split(":")[0] for inner in node.inputs] == [
        "./runs/step-2",
        "./runs/step-10",
        "./runs/step-11",
        "runs/step-1",
    ]


MISTAKES = {
    "nothing matches": (
        '"runs/stop-*"',
        "2:33: 'checkpoint_average': checkpoints: no folder matches 'runs/stop-*', which is "
        "relative to the recipe",
    ),
    "nothing in a list matches": (
        '[runs/step-1, "x*"]',
        "checkpoints.1: no folder matches 'x*'",
    ),
    "one twice": (
        '["runs/step-*", runs/step-2]',
        "checkpoints.1: 'runs/step-2' is there twice",
    ),
    "no checkpoint": ("[]", "checkpoints: an empty list names no checkpoint"),
    "a number": ("{checkpoints: 5}", "a folder, or a pattern that matches several, not a number"),
    "too many wanted": (
        '{checkpoints: "runs/*", last: 4}',
        "the last 4 are asked for, and there are 3 checkpoints",
    ),
    "ema without decay": ('{checkpoints: "runs/*", weights: ema}', "'ema' needs a decay"),
    "decay without ema": ('{checkpoints: "runs/*", decay: 0.9}', "only 'ema' has a decay"),
    "decay of one": (
        '{checkpoints: "runs/*", weights: ema, decay: 1}',
        "decay: below 1, not 1",
    ),
    "unknown weights": (
        '{checkpoints: "runs/*", weights: min_sqrt}',
        "weights: 'min_sqrt' is not known\n  fix: did you mean 'minus_sqrt'?",
    ),
}


@pytest.mark.parametrize(("expression", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_told_at_its_place(expression: str, message: str, tmp_path: Path) -> None:
    runs(tmp_path, [1, 2, 3])
    (tmp_path / "runs" / "step-4").write_text("no folder")
    with pytest.raises(RecipeError) as caught:
        api.plan(recipe(tmp_path, expression))
    assert message in str(caught.value)


def test_recipe_that_goes_along_tells_of_no_folder_of_this_machine(tmp_path: Path) -> None:
    runs(tmp_path / "elsewhere", [1, 2])
    for written in (f'"{tmp_path}/elsewhere/runs/step-*"', '["./../elsewhere/runs/step-*"]'):
        place = tmp_path / "recipes"
        place.mkdir(exist_ok=True)
        plan = api.plan(recipe(place, written))
        assert "elsewhere" not in plan.shown_recipe
        assert "./step-*" in plan.shown_recipe
        assert set(plan.sources) == {"./step-1", "./step-2"}


def test_patterns_match_folders_alone_and_no_hidden_ones(tmp_path: Path) -> None:
    for name in ("step-10", "step-9", "step-9b", "step-09", ".step-1", "[a]", "a"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-1").touch()
    found = matching_folders("step-*", tmp_path)
    assert found == ["./step-09", "./step-9", "./step-9b", "./step-10"]
    assert matching_folders("\0/*", tmp_path) == []
    assert matching_folders("[a]", tmp_path) == ["./[a]"]
    assert matching_folders(f"{tmp_path}/step-?", tmp_path / "a") == [f"{tmp_path}/step-9"]
    assert matching_folders("../step-?", tmp_path / "a") == ["../step-9"]
