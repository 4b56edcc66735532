"""Task vectors of which a random part is kept: which, how many, and what becomes of their sum."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tensorsurgeon import api
from tests.cli.checkpoints import Tensors, read_tensors
from tests.methods.folders import Workbench, in_layer, tuned
from tests.methods.numerics import float64, relative_error
from tests.methods.references import Float64

NAME = "model.layers.0.matrix"
SHAPE = (600, 700)
METHODS = ["dare_linear", "dare_ties", "della_linear", "della"]
DARE, DELLA = METHODS[:2], METHODS[2:]


def words_for(seed: int, model: str, count: int) -> NDArray[np.uint32]:
    """The words as the manual describes them, from numpy's own generator."""
    text = json.dumps([seed, NAME, f"{model}:{NAME}"])
    key = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], "<u8")
    drawn = np.random.Philox(key=key.astype(np.uint64)).random_raw(-(-count // 2))
    return np.asarray(drawn, "<u8").view("<u4")[:count]


def constant_update(value: float = 1.0) -> dict[str, Tensors]:
    """A base of zeros, and models that differ from it by the same number everywhere."""
    base = in_layer({"matrix": np.zeros(SHAPE)})
    return {"base": base, "m1": in_layer({"matrix": np.full(SHAPE, value)})}


def random_updates(count: int = 2, dtype: str = "F32") -> dict[str, Tensors]:
    random = np.random.default_rng(3)
    base = in_layer({"matrix": random.standard_normal(SHAPE)}, dtype)
    others = {f"m{i}": tuned(base, seed=i, scale=0.5) for i in range(1, count + 1)}
    return {"base": base, **others}


def expression(method: str, models: list[str], **parameters: Any) -> dict[str, Any]:
    return {method: {"base": "base", "models": models, **parameters}}


def probabilities(method: str, delta: Float64, density: float, epsilon: float) -> Float64:
    """Of keeping each element."""
    if method in DARE:
        return np.full(delta.shape, density)
    ranks = np.abs(delta).astype(np.float32).argsort(axis=-1, kind="stable").argsort(axis=-1)
    return (density - epsilon) + 2 * epsilon * ranks / (delta.shape[-1] - 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", [0, 5])
def test_what_is_kept_follows_from_seed_tensor_model_and_index(
    method: str, seed: int, bench: Workbench
) -> None:
    models = random_updates()
    parameters = {"density": 0.4, "rescale": "none", "normalize": False}
    file = bench.recipe(expression(method, ["m1", "m2"], **parameters), models, dtype="F64")
    recipe = json.loads(file.read_text()) | {"seed": seed}
    file.write_text(json.dumps(recipe))
    api.apply(api.plan(file), threads=1)
    found = read_tensors(file.parent / "out")[NAME]
    base, *others = (float64(tensors[NAME]) for tensors in models.values())
    pruned = []
    for model, other in zip(("m1", "m2"), others, strict=True):
        words = words_for(seed, model, base.size).reshape(base.shape)
        limits = np.floor(probabilities(method, other - base, 0.4, 0.15) * 2**32)
        pruned.append(np.where(words < limits, other - base, 0.0))
    total = pruned[0] + pruned[1]
    if method in ("dare_ties", "della"):
        sign = np.where(total >= 0, 1, -1)
        total = sum(np.where(np.sign(delta) == sign, delta, 0.0) for delta in pruned)
    assert relative_error(found, base + total) < 1e-14


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("density", [0.2, 0.5, 0.8])
def test_the_wanted_share_is_kept(method: str, density: float, bench: Workbench) -> None:
    found = bench.merged(
        expression(method, ["m1"], density=density, rescale="none", normalize=False),
        constant_update(),
    )[NAME]
    assert set(np.unique(found)) <= {0.0, 1.0}
    n = found.size
    # Six standard deviations of a binomial's mean.
    assert abs(found.mean() - density) < 6 * np.sqrt(density * (1 - density) / n)


@pytest.mark.parametrize("method", DARE)
def test_dividing_by_density_keeps_the_expectation(method: str, bench: Workbench) -> None:
    found = bench.merged(
        expression(method, ["m1"], density=0.25, rescale="density"), constant_update()
    )[NAME]
    assert set(np.unique(found)) == {0.0, 4.0}
    assert abs(found.mean() - 1.0) < 6 * np.sqrt(0.75 / 0.25 / found.size)


@pytest.mark.parametrize("method", METHODS)
def test_l1_restores_the_sum_of_magnitudes(method: str, bench: Workbench) -> None:
    models = random_updates(1)
    body = expression(method, ["m1"], density=0.3, rescale="l1", normalize=False)
    found = bench.merged(body, models, dtype="F64")[NAME]
    base, other = (float64(tensors[NAME]) for tensors in models.values())
    update = found - base
    assert np.count_nonzero(update) < 0.35 * update.size
    np.testing.assert_allclose(np.abs(update).sum(), np.abs(other - base).sum(), rtol=1e-12)


def test_della_keeps_larger_elements_more_often(bench: Workbench) -> None:
    rows = np.sort(np.random.default_rng(0).random(SHAPE) + 0.5, axis=1)
    models = {"base": in_layer({"matrix": np.zeros(SHAPE)}), "m1": in_layer({"matrix": rows})}
    body = expression(
        "della_linear", ["m1"], density=0.5, epsilon=0.4, rescale="none", normalize=False
    )
    kept = (bench.merged(body, models)[NAME] != 0).mean(axis=0)
    wanted = 0.1 + 0.8 * np.arange(SHAPE[1]) / (SHAPE[1] - 1)
    assert np.abs(kept - wanted).max() < 6 * np.sqrt(0.25 / SHAPE[0])


@pytest.mark.parametrize("shape", [(9, 1), (1, 1), (1,)])
def test_della_keeps_a_row_of_one_element_with_the_density(
    shape: tuple[int, ...], bench: Workbench
) -> None:
    models = {"base": in_layer({"m": np.zeros(shape)}), "m1": in_layer({"m": np.ones(shape)})}
    body = expression("della_linear", ["m1"], density=0.5, rescale="none", normalize=False)
    kept = bench.merged(body, models)["model.layers.0.m"]
    words = [
        np.random.Philox(
            key=np.frombuffer(
                hashlib.sha256(
                    json.dumps([0, "model.layers.0.m", "m1:model.layers.0.m"]).encode()
                ).digest()[:16],
                "<u8",
            ).astype(np.uint64)
        )
        .random_raw(1 + kept.size // 2)
        .view("<u4")[: kept.size]
    ]
    np.testing.assert_array_equal(kept.reshape(-1), words[0] < 2**31)


@pytest.mark.parametrize("method", METHODS)
def test_two_models_lose_different_elements(method: str, bench: Workbench) -> None:
    models = constant_update() | {"m2": constant_update()["m1"]}
    body = expression(
        method, ["m1", "m2"], density=0.5, rescale="none", normalize=False, weights=[1, 1]
    )
    values, counts = np.unique(bench.merged(body, models)[NAME], return_counts=True)
    assert list(values) == [0.0, 1.0, 2.0]
    # DELLA gives both the same probabilities, from 0.35 to 0.65, whose mean square is more.
    both = 0.25 + (0.3**2 / 12 if method in DELLA else 0.0)
    np.testing.assert_allclose(counts / counts.sum(), [both, 1 - 2 * both, both], atol=0.005)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_bytes_for_any_number_of_threads(method: str, bench: Workbench) -> None:
    models = random_updates(dtype="BF16")
    body = expression(method, ["m1", "m2"], density=0.6)
    one, many = (bench.merged(body, models, threads=threads) for threads in (1, 7))
    assert one[NAME].tobytes() == many[NAME].tobytes()


def test_another_seed_keeps_others(bench: Workbench, tmp_path: Path) -> None:
    file = bench.recipe(expression("dare_linear", ["m1"], density=0.5), constant_update())
    recipe = json.loads(file.read_text())
    found = []
    for seed in (1, 2):
        file.write_text(json.dumps(recipe | {"seed": seed, "output": {"path": f"./{seed}"}}))
        api.apply(api.plan(file))
        found.append(read_tensors(file.parent / f"{seed}")[NAME] != 0)
    assert abs((found[0] == found[1]).mean() - 0.5) < 0.01
