"""A second opinion: mergekit, in an environment of its own, on the same two models."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.real.conftest import Merge
from tests.real.reference import Weights, count_off, sum_over
from tests.real.test_numbers import LINEAR, RULES

Mergekit = Callable[[dict[str, Any]], Path]
"""Runs a mergekit configuration and returns the folder it wrote."""

# Asked to compute in float32 and to round at the end; left alone it computes in bfloat16.
IN_FLOAT32 = {"dtype": "float32", "out_dtype": "bfloat16"}


@pytest.fixture
def mergekit(mergekit_python: Path, scratch: Path) -> Mergekit:
    def mergekit(config: dict[str, Any]) -> Path:
        file, folder = scratch / "mergekit.yaml", scratch / "mergekit"
        file.write_text(json.dumps(config))
        command = [mergekit_python.with_name("mergekit-yaml"), file, folder, "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return folder

    return mergekit


def share_off(ours: Path, theirs: Path, sources: list[Path], precision: float) -> float:
    """The share of elements an ulp apart; none is further, but for inputs that cancel."""
    a, b, inputs = Weights(ours), Weights(theirs), [Weights(source) for source in sources]
    assert a.names == b.names

    def off_in(name: str) -> int:
        values = [source.float64(name) for source in inputs]
        return count_off(a.bits(name), b.float64(name), values, precision)

    off, elements = sum_over(a.names, off_in), a.elements
    print(f"{off} of {elements} elements differ")
    return off / elements


def test_linear_agrees_with_mergekit(
    merge: Merge, mergekit: Mergekit, smollm2: Path, smollm2_tuned: Path
) -> None:
    models = [
        {"model": str(smollm2), "parameters": {"weight": 0.3}},
        {"model": str(smollm2_tuned), "parameters": {"weight": 0.7}},
    ]
    theirs = mergekit({"merge_method": "linear", "models": models, **IN_FLOAT32})
    assert share_off(merge(LINEAR), theirs, [smollm2, smollm2_tuned], 2**-23) <= 0.001


def test_slerp_by_rules_agrees_with_mergekit(
    merge: Merge, mergekit: Mergekit, smollm2: Path, smollm2_tuned: Path
) -> None:
    sources = [{"model": str(model), "layer_range": [0, 30]} for model in (smollm2, smollm2_tuned)]
    theirs = mergekit(
        {
            "merge_method": "slerp",
            "base_model": str(smollm2),
            "slices": [{"sources": sources}],
            "parameters": {"t": in_their_words(RULES)},
            **IN_FLOAT32,
        }
    )
    ours = merge({"slerp": {"models": ["base", "tuned"], "t": RULES}})
    # At angles below 0.03 it interpolates linearly instead, which costs it up to 2^-14.
    assert share_off(ours, theirs, [smollm2, smollm2_tuned], 2**-14) <= 0.001


def in_their_words(rules: list[Any]) -> list[dict[str, Any]]:
    """Rules as mergekit writes them: a filter is a part of a tensor's name."""
    *matching, default = rules
    filters = [
        {"filter": rule["match"].strip("*").strip("."), "value": rule["value"]} for rule in matching
    ]
    return [*filters, {"value": default}]


def test_depth_up_scaling_agrees_with_mergekit_bit_for_bit(
    merge: Merge, mergekit: Mergekit, smollm2: Path
) -> None:
    slices = [
        {"sources": [{"model": str(smollm2), "layer_range": layers}]}
        for layers in ([0, 22], [8, 30])
    ]
    theirs = mergekit({"merge_method": "passthrough", "slices": slices, "dtype": "bfloat16"})
    ours = merge({"depth_up_scale": {"model": "base", "remove": 8}})
    a, b = Weights(ours), Weights(theirs)
    assert a.names == b.names
    assert all(np.array_equal(a.bits(name), b.bits(name)) for name in a.names)
