"""NaNs and infinities in what is merged: named and counted, or let pass when asked to."""

from typing import Any

import numpy as np
import pytest

from tensorsurgeon import api
from tensorsurgeon.errors import CheckpointError
from tests.cli.checkpoints import Tensors, read_tensors
from tests.methods.folders import Workbench, layer

NAME = "model.layers.0.matrix"
EXPRESSIONS: dict[str, dict[str, Any]] = {
    "linear": {"linear": {"models": ["m1", "m2"]}},
    "task_arithmetic": {"task_arithmetic": {"base": "base", "models": ["m1", "m2"]}},
    "ties": {"ties": {"base": "base", "models": ["m1", "m2"], "density": 0.5}},
    "dare_ties": {"dare_ties": {"base": "base", "models": ["m1", "m2"], "density": 0.9}},
    "della": {"della": {"base": "base", "models": ["m1", "m2"], "density": 0.5}},
}


def models_with(*values: float) -> dict[str, Tensors]:
    models = {
        name: layer({"matrix": (30, 40), "vector": (40,)}, dtype="BF16", seed=seed)
        for seed, name in enumerate(("base", "m1", "m2"))
    }
    for place, value in enumerate(values):
        models["m2"][NAME][3, place] = value
    return models


@pytest.mark.parametrize("method", EXPRESSIONS)
def test_nan_and_infinity_are_named_and_counted(method: str, bench: Workbench) -> None:
    with pytest.raises(CheckpointError) as caught:
        bench.merged(EXPRESSIONS[method], models_with(np.nan, np.inf, np.nan))
    message = str(caught.value)
    assert f"tensor '{NAME}': m2:{NAME} has 2 NaNs and 1 infinite value" in message
    assert "--allow-nonfinite" in message
    assert "m1:" not in message


@pytest.mark.parametrize("method", [name for name in EXPRESSIONS if name != "dare_ties"])
def test_they_pass_when_asked_to(method: str, bench: Workbench) -> None:
    file = bench.recipe(EXPRESSIONS[method], models_with(np.inf))
    result = api.apply(api.plan(file), allow_nonfinite=True)
    found = read_tensors(file.parent / "out")[NAME].astype(np.float64)
    assert not np.isfinite(found[3, 0]) or method == "della"  # which may drop it
    assert np.count_nonzero(~np.isfinite(found)) <= 1
    assert result.tensors_computed == 2


def test_a_sum_beyond_float64_is_told_as_such(bench: Workbench) -> None:
    models = {name: {NAME: np.full((4, 4), 1.7e308)} for name in ("m1", "m2")}
    body = {"linear": {"models": ["m1", "m2"], "normalize": False}}
    with pytest.raises(CheckpointError, match="16 values became infinite or NaN in float64"):
        bench.merged(body, models)
