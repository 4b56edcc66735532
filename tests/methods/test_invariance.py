"""What the bytes of merged task vectors do not depend on: the size of spans, stored dtypes."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.checkpoints import LARGEST, NUMPY_DTYPES, Tensors, odd_tensors, read_tensors
from tests.conftest import ROOT
from tests.methods.folders import Workbench, in_layer, layer, tuned
from tests.methods.numerics import float64

TWO: dict[str, Any] = {"base": "base", "models": ["m1", "m2"], "weights": [0.7, -0.9]}
MERGES: dict[str, dict[str, Any]] = {
    "task_arithmetic": {"task_arithmetic": TWO},
    "ties": {"ties": TWO | {"density": 0.4}},
    "ties over the model": {"ties": TWO | {"density": 0.4, "scope": "model"}},
    "dare_linear": {"dare_linear": TWO | {"density": 0.4, "rescale": "density"}},
    "dare_ties": {"dare_ties": TWO | {"density": 0.4, "rescale": "none"}},
    "della": {"della": TWO | {"density": 0.4, "rescale": "none"}},
    "breadcrumbs": {"breadcrumbs": TWO | {"density": 0.4, "gamma": 0.1}},
}
RESCALED = ["ties", "dare_ties", "della", "breadcrumbs"]
"""By sums over a tensor, whose last bits follow from the size of spans."""

APPLY = """
import sys
from tensorsurgeon import specs
specs.SPAN = int(sys.argv[1])
from tensorsurgeon import api
api.apply(api.plan(sys.argv[2], output=sys.argv[3]), threads=2)
"""


def with_spans_of(elements: int, recipe: Path, out: Path) -> dict[str, Any]:
    """The tensors of a result that was made in spans of so many elements."""
    command = [sys.executable, "-c", APPLY, str(elements), str(recipe), str(out)]
    subprocess.run(command, check=True, cwd=ROOT)
    return read_tensors(out)


def models_of(dtype: str) -> dict[str, Tensors]:
    """Rows that are no multiples of what a counter gives, shorter and longer than some spans."""
    shapes = {"matrix": (300, 701), "long": (3, 70_001), "cube": (3, 50, 77), "vector": (9001,)}
    base = layer(shapes | {"one": (1,), "empty": (0, 5)}, dtype=dtype)
    return {"base": base, **{f"m{seed}": tuned(base, seed=seed) for seed in (1, 2)}}


@pytest.mark.parametrize("merge", MERGES)
def test_size_of_spans_changes_no_byte(merge: str, bench: Workbench, tmp_path: Path) -> None:
    recipe = bench.recipe(MERGES[merge], models_of("F64"))
    wanted = with_spans_of(1 << 18, recipe, tmp_path / "as it is")
    for bits in (10, 13):
        found = with_spans_of(1 << bits, recipe, tmp_path / f"{bits}")
        for name, tensor in found.items():
            assert tensor.tobytes() == wanted[name].tobytes(), (name, bits)


@pytest.mark.parametrize("method", RESCALED)
def test_size_of_spans_changes_the_last_bits_of_a_scale_alone(
    method: str, bench: Workbench, tmp_path: Path
) -> None:
    body = {method: TWO | {"density": 0.4, "rescale": "l1"}}
    recipe = bench.recipe(body, models_of("F64"))
    wanted = with_spans_of(1 << 18, recipe, tmp_path / "as it is")
    for name, tensor in with_spans_of(1 << 10, recipe, tmp_path / "10").items():
        np.testing.assert_allclose(tensor, wanted[name], rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("dtypes", [("BF16", "F32", "F8_E4M3"), ("F8_E5M2", "F64", "F16")])
def test_stored_dtypes_are_read_for_the_numbers_they_are(
    dtypes: tuple[str, ...], merge: str, bench: Workbench
) -> None:
    """Tensors of no element and of one, of no axis, and of more than a span."""
    models = {
        name: odd_tensors(dtype=dtype, seed=seed)
        for seed, (name, dtype) in enumerate(zip(("base", "m1", "m2"), dtypes, strict=True))
    }
    wide = {name: {n: float64(t) for n, t in tensors.items()} for name, tensors in models.items()}
    found = bench.merged(MERGES[merge], models, dtype="F64")
    wanted = bench.merged(MERGES[merge], wide, dtype="F64")
    for name, tensor in found.items():
        assert tensor.tobytes() == wanted[name].tobytes(), name
    kept = bench.merged(MERGES[merge], models)
    assert {tensor.dtype for tensor in kept.values()} == {NUMPY_DTYPES[dtypes[0]]}


@pytest.mark.parametrize("merge", MERGES)
def test_smallest_and_largest_numbers_are_computed_with(merge: str, bench: Workbench) -> None:
    """Updates below what float32 holds, and those that reach its end."""
    for size in (2.0**-149, 2.0**-133, LARGEST["BF16"] / 8):
        values = np.linspace(-3, 3, 600).reshape(20, 30) // 1 * size
        models = {
            "base": in_layer({"matrix": np.zeros((20, 30))}, "F32"),
            "m1": in_layer({"matrix": values}, "F32"),
            "m2": in_layer({"matrix": -values}, "F32"),
        }
        found = bench.merged(MERGES[merge], models, dtype="F64")["model.layers.0.matrix"]
        assert np.isfinite(found).all()
        assert np.abs(found).max() >= size * 0.7


def test_names_of_models_decide_which_elements_are_kept_and_their_places_do_not(
    bench: Workbench,
) -> None:
    models = models_of("F32")
    body = {"base": "base", "density": 0.5, "rescale": "none"}
    digests = set()
    for names in (["m1", "m2"], ["m2", "m1"]):
        found = bench.merged({"dare_linear": body | {"models": names}}, models, dtype="F32")
        joined = b"".join(found[name].tobytes() for name in sorted(found))
        digests.add(hashlib.sha256(joined).hexdigest())
    assert len(digests) == 1
