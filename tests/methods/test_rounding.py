"""What rounding to the output's dtype does: how much of an update it takes back, and at random."""

import json
from typing import Any

import numpy as np
import pytest

from tensorsurgeon import api
from tensorsurgeon.execute import Result
from tests.cli.checkpoints import NUMPY_DTYPES, Tensors, read_tensors
from tests.methods.folders import Workbench, in_layer, layer, tuned
from tests.methods.numerics import float64

NAME = "model.layers.0.matrix"
SHAPE = (600, 700)


def run(
    bench: Workbench,
    body: dict[str, Any],
    models: dict[str, Tensors],
    threads: int = 1,
    **output: str,
) -> tuple[Result, Tensors]:
    file = bench.recipe(body, models)
    recipe = json.loads(file.read_text())
    recipe["output"] |= output
    file.write_text(json.dumps(recipe))
    result = api.apply(api.plan(file), threads=threads)
    return result, read_tensors(file.parent / "out")


def small_update(dtype: str = "BF16") -> dict[str, Tensors]:
    base = layer({"matrix": SHAPE, "vector": (64,)}, dtype=dtype)
    return {"base": base, "m1": tuned(base, seed=1, scale=0.01, shared=None)}


BASED: dict[str, dict[str, Any]] = {
    "task_arithmetic": {
        "task_arithmetic": {"base": "base", "models": ["m1"], "weights": [0.3]},
    },
    "ties": {"ties": {"base": "base", "models": ["m1"], "lambda": 0.3, "density": 0.6}},
}


@pytest.mark.parametrize("method", BASED)
@pytest.mark.parametrize("threads", [1, 3])
def test_the_lost_share_is_that_of_elements_that_stay_what_they_were(
    method: str, threads: int, bench: Workbench
) -> None:
    models = small_update()
    result, found = run(bench, BASED[method], models, threads)
    _, exact = run(bench, BASED[method], models, dtype="float64")
    every = undone = 0.0
    for name, base in models["base"].items():
        update = np.abs(exact[name] - float64(base))
        every += update.sum()
        undone += update[float64(found[name]) == float64(base)].sum()
    assert result.update_lost is not None
    assert 0.01 < undone / every < 0.9
    np.testing.assert_allclose(result.update_lost, undone / every, rtol=1e-12)


def test_nothing_is_lost_where_nothing_is_rounded(bench: Workbench) -> None:
    result, _ = run(bench, BASED["ties"], small_update(), dtype="float64")
    assert result.update_lost == 0.0


def test_without_a_base_there_is_no_update_to_lose(bench: Workbench) -> None:
    result, _ = run(bench, {"linear": {"models": ["base", "m1"]}}, small_update())
    assert result.update_lost is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float8_e4m3fn"])
def test_stochastic_rounding_keeps_the_mean(dtype: str, bench: Workbench) -> None:
    third = in_layer({"matrix": np.full(SHAPE, 1 + 1 / 3 * 2.0**-9)}, "F64")
    twice = in_layer({"matrix": np.full(SHAPE, 1 + 2 / 3 * 2.0**-9)}, "F64")
    body = {"linear": {"models": ["a", "b"]}}
    _, found = run(bench, body, {"a": third, "b": twice}, dtype=dtype, rounding="stochastic")
    values, counts = np.unique(float64(found[NAME]), return_counts=True)
    assert len(values) <= 2
    if len(values) == 2:  # a half of 2^-9 lies between neighbours of all but float32 and float16
        gap = values[1] - values[0]
        share = (1 + 2.0**-10 - values[0]) / gap
        sigma = np.sqrt(share * (1 - share) / found[NAME].size)
        assert abs(counts[1] / counts.sum() - share) < 6 * sigma
    else:
        assert values[0] == 1 + 2.0**-10


def test_stochastic_rounding_takes_neighbours_and_keeps_what_is_exact(bench: Workbench) -> None:
    models = small_update("F32")
    body = {"linear": {"models": ["base", "m1"]}}
    _, found = run(bench, body, models, dtype="bfloat16", rounding="stochastic")
    _, exact = run(bench, body, models, dtype="float64")
    down = (exact[NAME].astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)
    near = np.abs(float64(found[NAME]) - exact[NAME]) < np.abs(float64(down)) * 2.0**-7
    assert near.all()
    assert 0.4 < (float64(found[NAME]) == float64(down)).mean() < 0.6
    whole = in_layer({"matrix": np.arange(256.0).reshape(16, 16)}, "F32")
    half = {"linear": {"models": ["a", "b"], "weights": [0.5, 0.5]}}
    _, kept = run(bench, half, {"a": whole, "b": whole}, dtype="bfloat16", rounding="stochastic")
    np.testing.assert_array_equal(float64(kept[NAME]), float64(whole[NAME]))


def test_stochastic_rounding_gives_the_same_bytes_for_any_number_of_threads(
    bench: Workbench,
) -> None:
    one, many = (
        run(bench, BASED["ties"], small_update(), threads, rounding="stochastic")[1]
        for threads in (1, 5)
    )
    for name, tensor in one.items():
        assert tensor.tobytes() == many[name].tobytes()


def test_stochastic_rounding_saves_a_small_update(bench: Workbench) -> None:
    """An update of a thousandth of a unit in the last place is there on average."""
    base = in_layer({"matrix": np.ones(SHAPE)}, "BF16")
    tiny = in_layer({"matrix": np.full(SHAPE, 1 + 2.0**-7)}, "BF16")
    body = {"task_arithmetic": {"base": "base", "models": ["m1"], "weights": [1e-3]}}
    models = {"base": base, "m1": tiny}
    nearest, found = run(bench, body, models)
    assert nearest.update_lost == 1.0
    assert found[NAME].tobytes() == base[NAME].tobytes()
    _, found = run(bench, body, models, rounding="stochastic")
    assert found[NAME].dtype == NUMPY_DTYPES["BF16"]
    update = (float64(found[NAME]) - 1.0).mean()
    assert abs(update / (1e-3 * 2.0**-7) - 1) < 6 / np.sqrt(1e-3 * found[NAME].size)
