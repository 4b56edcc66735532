"""Pruned task vectors: what is kept, what it is multiplied by, and how it is put together."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tensorsurgeon import api
from tensorsurgeon.errors import RecipeError
from tests.cli.checkpoints import Tensors
from tests.methods.folders import Workbench, layer, tuned
from tests.methods.numerics import float64, relative_error
from tests.methods.oracle import Oracle
from tests.methods.references import Float64

SHAPES = {"matrix": (48, 64), "wide": (3, 130), "vector": (64,), "few": (7,), "row": (1, 5)}
LARGE = {"matrix": (600, 700)}
"""More than one span."""

NAMES = ["m1", "m2", "m3"]
WEIGHTS = [0.7, 1.1, -0.4]


def models_of(
    shapes: dict[str, tuple[int, ...]], dtype: str, scale: float = 0.1
) -> dict[str, Tensors]:
    base = layer(shapes, dtype=dtype)
    others = {name: tuned(base, seed=seed, scale=scale) for seed, name in enumerate(NAMES, 1)}
    return {"base": base, **others}


def expression(method: str, **parameters: Any) -> dict[str, Any]:
    return {method: {"base": "base", "models": NAMES, "weights": WEIGHTS, **parameters}}


def largest(delta: Float64, first: int, last: int) -> NDArray[np.bool_]:
    """Those from the first to the last in order of magnitude, the larger first; ties by index."""
    order = np.argsort(-np.abs(delta.reshape(-1)).astype(np.float32), kind="stable")
    mask = np.zeros(delta.size, bool)
    mask[order[first:last]] = True
    return mask.reshape(delta.shape)


def together(
    base: Float64, deltas: list[Float64], *, elect: bool, normalize: bool, lambda_: float = 1.0
) -> Float64:
    """The sum of weighted task vectors, and what it is divided by."""
    weighted = np.array([w * d for w, d in zip(WEIGHTS, deltas, strict=True)])
    weights = np.array(WEIGHTS).reshape(-1, *[1] * base.ndim)
    agree = np.ones(weighted.shape, bool)
    if elect:
        sign = np.where(weighted.sum(0) >= 0, 1.0, -1.0)
        agree = np.sign(weighted) == sign
    divisor = (weights * agree).sum(0)
    divisor = np.where(divisor == 0, 1.0, divisor) if normalize else 1.0
    return np.asarray(base + lambda_ * (weighted * agree).sum(0) / divisor)


DENSITIES = [0.5, 0.2, 0.9]


def pruned_by_rank(
    deltas: list[Float64], gamma: float = 0.0, *, rescale: bool = False
) -> list[Float64]:
    """What magnitude leaves of task vectors."""
    kept = []
    for delta, density in zip(deltas, DENSITIES, strict=True):
        wanted = max(1, int(density * delta.size))
        outliers = min(int(gamma * delta.size), delta.size - wanted)
        pruned = delta * largest(delta, outliers, outliers + wanted)
        if rescale and np.abs(pruned).sum() > 0:
            pruned = pruned * np.abs(delta).sum() / np.abs(pruned).sum()
        kept.append(pruned)
    return kept


BY_RANK = {
    "ties": ("ties", {}, {"elect": True, "normalize": True}),
    "ties, not normalized": ("ties", {"normalize": False}, {"elect": True, "normalize": False}),
    "ties, lambda": ("ties", {"lambda": 0.6}, {"elect": True, "normalize": True, "lambda_": 0.6}),
    "ties, rescaled": ("ties", {"rescale": "l1"}, {"elect": True, "normalize": True}),
    "breadcrumbs": ("breadcrumbs", {"gamma": 0.03}, {"elect": False, "normalize": False}),
    "breadcrumbs, normalized": (
        "breadcrumbs",
        {"gamma": 0.1, "normalize": True},
        {"elect": False, "normalize": True},
    ),
    "breadcrumbs_ties": ("breadcrumbs_ties", {"gamma": 0.03}, {"elect": True, "normalize": False}),
}
CASES = pytest.mark.parametrize("case", BY_RANK)


@CASES
@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16", "F64"])
@pytest.mark.parametrize("shapes", [SHAPES, LARGE], ids=["small", "large"])
def test_exactly_the_wanted_elements_are_kept(
    case: str, dtype: str, shapes: dict[str, tuple[int, ...]], bench: Workbench
) -> None:
    method, parameters, how = BY_RANK[case]
    models = models_of(shapes, dtype)
    density = {"each": DENSITIES}
    found = bench.merged(expression(method, density=density, **parameters), models, dtype="F64")
    for name, tensor in found.items():
        base, *others = (float64(tensors[name]) for tensors in models.values())
        deltas = pruned_by_rank(
            [other - base for other in others],
            parameters.get("gamma", 0.0),
            rescale="rescale" in parameters,
        )
        assert relative_error(tensor, together(base, deltas, **how)) < 1e-14, name


@CASES
def test_agrees_with_mergekit(case: str, bench: Workbench, mergekit: Oracle) -> None:
    """In float32; a tensor of five elements it empties, which is its defect."""
    method, parameters, _ = BY_RANK[case]
    models = models_of(SHAPES, "F32")
    density = {"each": DENSITIES}
    found = bench.merged(expression(method, density=density, **parameters), models)
    asked = {key: value for key, value in parameters.items() if key not in ("gamma", "rescale")}
    if "rescale" in parameters:
        asked["rescale"] = True
    if "gamma" in parameters:
        asked["gamma"] = dict.fromkeys(NAMES, parameters["gamma"])
    theirs = mergekit(
        method,
        models,
        base=True,
        weight=dict(zip(NAMES, WEIGHTS, strict=True)),
        density=dict(zip(NAMES, DENSITIES, strict=True)),
        **asked,
    )
    for name, tensor in found.items():
        assert relative_error(tensor, float64(theirs[name])) < 1e-6, name


def over_the_model(deltas: dict[str, Float64], density: float) -> dict[str, Float64]:
    """What is left of a model's task vector where magnitudes are ranked over all tensors."""
    flat = np.concatenate([delta.reshape(-1) for delta in deltas.values()])
    mask = largest(flat, 0, max(1, int(density * flat.size)))
    kept, start = {}, 0
    for name, delta in deltas.items():
        kept[name] = delta * mask[start : start + delta.size].reshape(delta.shape)
        start += delta.size
    return kept


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("threads", [1, 4])
def test_scope_model_ranks_all_tensors_together(dtype: str, threads: int, bench: Workbench) -> None:
    """In bfloat16 many magnitudes are equal, and the threshold cuts through them."""
    models = models_of({"a": (70, 64), "b": (300,), "c": (600, 700), "d": (9,)}, dtype)
    body = expression("ties", density={"each": DENSITIES}, scope="model")
    found = bench.merged(body, models, dtype="F64", threads=threads)
    names = sorted(found)
    pruned = [
        over_the_model(
            {name: float64(models[model][name]) - float64(models["base"][name]) for name in names},
            density,
        )
        for model, density in zip(NAMES, DENSITIES, strict=True)
    ]
    for name in names:
        base = float64(models["base"][name])
        wanted = together(base, [kept[name] for kept in pruned], elect=True, normalize=True)
        assert relative_error(found[name], wanted) < 1e-14, name


def test_scope_model_wants_one_density(bench: Workbench) -> None:
    body = expression("ties", density=[0.2, 0.8], scope="model")
    with pytest.raises(RecipeError, match="with 'scope: model' density is a number"):
        bench.merged(body, models_of(SHAPES, "F32"))


@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_a_merge_of_merges_is_pruned_like_any_model(scope: str, bench: Workbench) -> None:
    """Also where both look at all tensors first."""
    models = models_of(SHAPES, "F32")
    inner = {"ties": {"base": "base", "models": ["m1", "m2"], "density": 0.5, "scope": scope}}
    outer = {"ties": {"base": "base", "models": [inner, "m3"], "density": 0.4, "scope": scope}}
    direct = bench.merged(outer, models, dtype="F64")
    between = models | {"merged": bench.merged(inner, models, dtype="F64")}
    staged = bench.merged(
        {"ties": {"base": "base", "models": ["merged", "m3"], "density": 0.4, "scope": scope}},
        between,
        dtype="F64",
    )
    for name, tensor in direct.items():
        np.testing.assert_array_equal(tensor, staged[name])


@CASES
def test_models_that_are_the_base_give_the_base_bit_for_bit(case: str, bench: Workbench) -> None:
    """Also minus zeros."""
    method, parameters, _ = BY_RANK[case]
    base = layer(SHAPES, dtype="BF16")
    base["model.layers.0.vector"][::2] = -0.0
    models = {"base": base} | {name: dict(base) for name in NAMES}
    found = bench.merged(expression(method, density=0.5, **parameters), models)
    for name, tensor in found.items():
        assert tensor.tobytes() == base[name].tobytes()


@CASES
@pytest.mark.parametrize("threads", [2, 7])
def test_the_same_bytes_for_any_threads_and_budget(
    case: str, threads: int, bench: Workbench
) -> None:
    method, parameters, _ = BY_RANK[case]
    models = models_of(LARGE | SHAPES, "BF16")
    body = expression(method, density=0.3, **parameters)
    one = bench.merged(body, models)
    many = bench.merged(body, models, threads=threads, max_memory=200_000_000)
    for name, tensor in one.items():
        assert tensor.tobytes() == many[name].tobytes()


@CASES
def test_the_order_of_models_does_not_matter(case: str, bench: Workbench) -> None:
    method, parameters, _ = BY_RANK[case]
    models = models_of(SHAPES, "F32")
    bodies = []
    for order in ([0, 1, 2], [2, 0, 1]):
        body = expression(method, density={"each": [DENSITIES[i] for i in order]}, **parameters)
        body[method]["models"] = [NAMES[i] for i in order]
        body[method]["weights"] = [WEIGHTS[i] for i in order]
        bodies.append(bench.merged(body, models, dtype="F64"))
    for name, tensor in bodies[0].items():
        assert relative_error(tensor, float64(bodies[1][name])) < 1e-12


def test_density_one_and_no_election_is_task_arithmetic(bench: Workbench) -> None:
    models = models_of(SHAPES, "F32")
    for method in ("breadcrumbs", "dare_linear", "della_linear"):
        one = bench.merged(expression(method, density=1), models, dtype="F64")
        other = bench.merged(expression("task_arithmetic"), models, dtype="F64")
        for name, tensor in one.items():
            assert relative_error(tensor, float64(other[name])) < 1e-14


@pytest.mark.parametrize(
    ("method", "parameters"),
    [("ties", {"density": 0}), ("breadcrumbs", {"density": 0}), ("della", {"density": 0})],
)
def test_density_zero_gives_the_base(
    method: str, parameters: dict[str, Any], bench: Workbench
) -> None:
    models = models_of(SHAPES, "F32")
    found = bench.merged(expression(method, **parameters), models)
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor, models["base"][name])


def test_a_model_without_weight_is_not_read(bench: Workbench) -> None:
    models = models_of(SHAPES, "F32")
    body = {"ties": {"base": "base", "models": ["m1", "m2"], "weights": [1, 0], "density": 0.5}}
    alone = {"ties": {"base": "base", "models": ["m1"], "density": 0.5}}
    plans = [api.plan(bench.recipe(expression, models)) for expression in (body, alone)]
    assert plans[0].bytes_read == plans[1].bytes_read
    merged = [bench.merged(expression, models) for expression in (body, alone)]
    for name, tensor in merged[0].items():
        assert tensor.tobytes() == merged[1][name].tobytes()


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("ties", {"density": 1.2}, "'ties': density: 1.2 is outside 0 to 1"),
        ("ties", {"density": {"each": [0.5]}, "models": ["m1", "m2"]}, None),
        ("ties", {"density": {"each": [0.5, 0.5]}}, "there are 3 models and 2 values of density"),
        ("dare_ties", {"density": -0.1}, "-0.1 is outside 0 to 1"),
        ("breadcrumbs", {"gamma": 7}, "gamma: 7 is outside 0 to 1"),
        ("della", {"density": 0.1}, "with density 0.1 and epsilon 0.15"),
        ("della", {"density": 0.9, "epsilon": 0.1}, "from 0.8 to 1\n"),
        ("dare_linear", {"rescale": "l2"}, "rescale"),
        ("ties", {"densty": 0.3}, "did you mean 'density'"),
    ],
)
def test_bad_parameters_are_told(
    method: str, parameters: dict[str, Any], message: str | None, bench: Workbench
) -> None:
    models = models_of(SHAPES, "F32")
    body = expression(method, **parameters)
    if "models" in parameters:
        body[method]["weights"] = WEIGHTS[:2]
    if message is None:
        bench.merged(body, models)
        return
    with pytest.raises(RecipeError) as caught:
        bench.merged(body, models)
    assert message in str(caught.value)
