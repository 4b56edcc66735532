"""What merges read, and what they take of memory: as much as the plan says."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tensorsurgeon import api
from tensorsurgeon.checkpoint import FileIdentity, ShardReader
from tensorsurgeon.execute import run_plan
from tensorsurgeon.plan import Plan
from tensorsurgeon.specs import SPAN, StoredTensor
from tests.cli.checkpoints import NUMPY_DTYPES, entry, llama_config, shard_bytes, write_checkpoint
from tests.cli.test_footprint import peak_of_apply
from tests.methods.folders import Expression, Workbench, layer, tiny_models

NAMES = ["base", "m1", "m2", "m3", "m4", "m5"]
TWO: dict[str, Any] = {"base": "base", "models": NAMES[1:3], "density": 0.5}
FIVE = TWO | {"models": NAMES[1:]}
SLERP = {"slerp": {"models": ["m1", "m2"], "t": 0.3}}


class Counting(ShardReader):
    """Counts the bytes that are read."""

    total = 0

    def read_into(self, tensor: StoredTensor, start: int, buffer: memoryview) -> None:
        self.total += len(buffer)
        super().read_into(tensor, start, buffer)


def alone(plan: Plan, out: Path, **options: Any) -> None:
    run_plan(plan, out, threads=1, **options)


def counted(
    plan: Plan, out: Path, told: list[tuple[int, int]], run: Callable[..., None] = alone
) -> int:
    """Bytes that a run reads of tensors."""
    here = {p: i for p, i in plan.identities.items() if isinstance(i, FileIdentity)}
    reader = Counting({path: here[path] for path in plan.paths()})
    run(
        plan,
        out,
        open_reader=lambda plan, folder: reader,
        progress=lambda done, total: told.append((done, total)),
    )
    return reader.total


def merges() -> Iterator[tuple[str, Expression]]:
    for scope in ("tensor", "model"):
        own = TWO | {"scope": scope}
        inner = {"ties": own | {"density": 0.3}}
        yield f"ties, {scope}", {"ties": own}
        yield f"ties of all, {scope}", {"ties": own | {"density": 1}}
        yield f"ties of none, {scope}", {"ties": own | {"density": 0}}
        yield f"ties of a part and all, {scope}", {"ties": own | {"density": {"each": [0.5, 1]}}}
        yield f"ties, l1, {scope}", {"ties": own | {"rescale": "l1"}}
        yield f"ties of ties, {scope}", {"ties": own | {"models": [inner, "m3"]}}
        yield f"ties of slerp, {scope}", {"ties": own | {"models": [SLERP, "m3"]}}
    for method in ("dare_ties", "della", "breadcrumbs"):
        yield method, {method: TWO | {"rescale": "none"}}
        yield f"{method}, l1", {method: TWO | {"rescale": "l1"}}
    yield "task arithmetic", {"task_arithmetic": {"base": "base", "models": ["m1", "m2"]}}
    yield "model stock", {"model_stock": {"base": "base", "models": ["m1", "m2"]}}


MERGES = dict(merges())


@pytest.mark.parametrize("merge", MERGES)
def test_as_much_is_read_as_the_plan_says(merge: str, bench: Workbench, tmp_path: Path) -> None:
    """The base is not read again to tell what rounding lost, rows and spans apart or not."""
    shapes = {"mlp.wide": (7, 60_001), "mlp.long": (2, SPAN + 5)}
    models = {
        name: tensors | layer(shapes, dtype="BF16", seed=seed)
        for seed, (name, tensors) in enumerate(tiny_models(NAMES[:4]).items())
    }
    plan = bench.planned(MERGES[merge], models)
    told: list[tuple[int, int]] = []
    assert counted(plan, tmp_path / "out", told) == plan.bytes_read
    assert told == sorted(told)
    assert all(done <= total == plan.bytes_read for done, total in told)


SHAPES: Mapping[str, tuple[int, ...]] = {
    "matrix": (1500, 2000),
    "rows longer than a span": (4, 3 * SPAN),
    "three axes": (8, 300, 1300),
}


def hollow(folder: Path, shape: tuple[int, ...], dtype: str, depth: int = 3) -> None:
    """A model of zeros, in a file of holes."""
    write_checkpoint(folder, {}, llama_config(depth))
    size = NUMPY_DTYPES[dtype].itemsize
    for length in shape:
        size *= length
    header = shard_bytes(
        {
            f"model.layers.{layer}.mlp.up_proj.weight": entry(
                dtype, list(shape), layer * size, (layer + 1) * size
            )
            for layer in range(depth)
        }
    )
    (folder / "model.safetensors").write_bytes(header)
    os.truncate(folder / "model.safetensors", len(header) + depth * size)


HELD: Mapping[str, tuple[str, Expression]] = {
    "ties of five": ("matrix", {"ties": FIVE}),
    "ties of two over the model": ("matrix", {"ties": TWO | {"scope": "model"}}),
    "dare_ties of five": ("matrix", {"dare_ties": FIVE}),
    "della of five": ("matrix", {"della": FIVE}),
    "della, long rows": ("rows longer than a span", {"della": TWO}),
    "della of a slerp, long rows": (
        "rows longer than a span",
        {"della": TWO | {"models": [SLERP, "m3"]}},
    ),
    "della, three axes": ("three axes", {"della": TWO}),
    "breadcrumbs of two": ("matrix", {"breadcrumbs": TWO}),
    "breadcrumbs of five": ("matrix", {"breadcrumbs": FIVE | {"rescale": "l1"}}),
    "merges of merges": (
        "matrix",
        {"ties": TWO | {"models": [{"dare_ties": TWO}, {"ties": TWO | {"scope": "model"}}]}},
    ),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["BF16", "F64"])
@pytest.mark.parametrize("merge", HELD)
def test_forecast_of_memory_holds_and_is_near(
    merge: str, dtype: str, threads: int, tmp_path: Path, bench: Workbench
) -> None:
    shape, expression = HELD[merge]
    path = bench.recipe(expression, {name: {} for name in NAMES})
    for folder in path.parent.iterdir():
        if folder.is_dir():
            hollow(folder, SHAPES[shape], dtype)
    forecast = api.memory_for(api.plan(path), threads)
    peak = peak_of_apply(path, "--threads", str(threads), "--max-memory", str(forecast))
    assert peak <= forecast < 1.8 * peak


def test_forecast_counts_the_plan_of_many_tensors_of_many_models(
    tmp_path: Path, bench: Workbench
) -> None:
    models = tiny_models(NAMES, depth=300)
    path = bench.recipe({"ties": FIVE | {"scope": "model"}}, models)
    forecast = api.memory_for(api.plan(path), 1)
    assert peak_of_apply(path, "--max-memory", str(forecast)) <= forecast
