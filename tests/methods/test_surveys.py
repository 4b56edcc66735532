"""Thresholds of a whole model: who is counted, how often, and what an interruption does to them."""

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tensorsurgeon import api
from tensorsurgeon.checkpoint import RemoteFile
from tensorsurgeon.execute import deliver_plan
from tensorsurgeon.plan import Plan, surveyed_in
from tensorsurgeon.specs import SPAN, Progress
from tests.cli.checkpoints import Tensors, file_bytes, read_tensors
from tests.cli.processes import ENGINE, stopped_by
from tests.crash.jobs import ALL_AT_ONCE, Job, strace
from tests.methods.folders import Workbench, layer, tiny_models
from tests.methods.test_reading import counted, hollow

TIES: dict[str, Any] = {"base": "base", "models": ["m1", "m2"], "density": 0.4, "scope": "model"}
NAMES = ["base", "m1", "m2", "m3"]


def not_the_embedding(value: float) -> list[Any]:
    return [{"match": "*embed*", "value": 0}, value]


class Nowhere:
    address = "nowhere"
    notes: tuple[str, ...] = ()


class Kept:
    """Somewhere that shards are sent to: a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def take(self, plan: Plan, **options: Any) -> None:
        deliver_plan(plan, self.folder / "none", self, threads=2, **options)

    def lacking(self, shards: Mapping[str, RemoteFile]) -> list[str]:
        return [name for name in shards if not (self.folder / name).exists()]

    def send(self, shard: Path, progress: Progress) -> str:
        (self.folder / shard.name).write_bytes(data := shard.read_bytes())
        return hashlib.sha256(data).hexdigest()

    def publish(self, folder: Path, shards: Mapping[str, RemoteFile]) -> "Nowhere":
        return Nowhere()


def rewrite(path: Path, *, result: Any = None, output: Any = None, **models: Any) -> None:
    """Changes parts of a recipe."""
    recipe = json.loads(path.read_text())
    recipe["models"] |= models
    recipe |= {key: part for key, part in (("result", result), ("output", output)) if part}
    path.write_text(json.dumps(recipe))


def same(found: Tensors, wanted: Tensors) -> bool:
    return {n: t.tobytes() for n, t in found.items()} == {n: t.tobytes() for n, t in wanted.items()}


@pytest.mark.parametrize("threads", [1, 3])
def test_merge_inside_is_surveyed_first_wherever_it_begins(threads: int, bench: Workbench) -> None:
    """The inner merge makes no embedding, which is the tensor that the outer begins with."""
    models = tiny_models(NAMES, dtype="F64", depth=3)
    inner = {"ties": TIES | {"weights": [not_the_embedding(0.9), not_the_embedding(-0.7)]}}
    outer = TIES | {"density": 0.7}
    plan = bench.planned({"ties": outer | {"models": [inner, "m3"]}}, models)
    depths = [str(nodes[-1]).count("ties(") for _, nodes in surveyed_in(plan.tensors)]
    assert depths == [1, 2]
    found = bench.merged({"ties": outer | {"models": [inner, "m3"]}}, models, threads=threads)
    step = bench.merged(inner, models)
    assert same(
        found, bench.merged({"ties": outer | {"models": ["m1", "m3"]}}, models | {"m1": step})
    )


def test_count_is_of_what_the_result_is_made_of(bench: Workbench) -> None:
    """A layer that is taken twice counts once, one that is left out does not count."""
    models = tiny_models(NAMES[:3], dtype="F32", depth=4)
    merged = {"ties": TIES}
    path = bench.recipe(merged, models)
    layers = [{"model": "t", "layers": span} for span in ([0, 2], [1, 2])]
    rewrite(path, result={"stack": layers}, t=merged)
    plan = api.plan(path)
    ((_, nodes),) = surveyed_in(plan.tensors)
    assert len(nodes) == len({id(node) for node in nodes}) == len(plan.tensors) - 9
    api.apply(plan, threads=2)
    found = read_tensors(path.parent / "out")
    short = {
        name: {n: t for n, t in tensors.items() if ".2." not in n and ".3." not in n}
        for name, tensors in models.items()
    }
    wanted = bench.merged(merged, short)
    for name, tensor in found.items():
        assert tensor.tobytes() == wanted[name.replace("layers.2.", "layers.1.")].tobytes(), name


@pytest.mark.parametrize("method", ["dare_ties", "della"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_copies_of_a_layer_have_the_same_random_numbers(
    method: str, rounding: str, bench: Workbench, tmp_path: Path
) -> None:
    """In one file or in several, where they are made one by one."""
    models = tiny_models(NAMES[:3], dtype="BF16", depth=2)
    body = {"base": "base", "models": ["m1", "m2"], "density": 0.4}
    path = bench.recipe({method: body}, models)
    twice = {"stack": [{"model": "t"}, {"model": "t"}]}
    rewrite(path, result=twice, output={"path": "./out", "rounding": rounding}, t={method: body})
    api.apply(api.plan(path), threads=2)
    found = read_tensors(path.parent / "out")
    for name, tensor in found.items():
        copy = name.replace("layers.0.", "layers.2.").replace("layers.1.", "layers.3.")
        assert tensor.tobytes() == found[copy].tobytes(), name
    rewrite(path, output={"path": "./out", "rounding": rounding, "max_shard_size": "20kB"})
    kept = Kept(tmp_path / "kept")
    kept.take(api.plan(path))
    assert same(read_tensors(kept.folder), found)


def test_shards_that_are_sent_one_by_one_are_surveyed_once(
    bench: Workbench, tmp_path: Path
) -> None:
    models = tiny_models(NAMES[:3], dtype="BF16", depth=3)
    path = bench.recipe({"ties": TIES}, models)
    rewrite(path, output={"path": "./out", "max_shard_size": "30kB"})
    plan = api.plan(path)
    assert len(plan.shards) > 3
    told: list[tuple[int, int]] = []
    kept = Kept(tmp_path / "kept")
    read = counted(
        plan, tmp_path / "out", told, run=lambda plan, out, **how: kept.take(plan, **how)
    )
    assert read == plan.bytes_read
    assert told == sorted(told)
    assert all(done <= total for done, total in told)
    api.apply(plan, threads=1)
    assert same(read_tensors(kept.folder), read_tensors(path.parent / "out"))


def test_run_that_is_killed_goes_on_with_the_same_thresholds(
    bench: Workbench, tmp_path: Path
) -> None:
    models = tiny_models(NAMES[:3], dtype="BF16", depth=3)
    path = bench.recipe({"ties": TIES | {"rescale": "l1"}}, models)
    api.apply(api.plan(path), threads=1)
    settings = tuple({"CRASH_ONE_THREAD": "1", **ALL_AT_ONCE}.items())
    for number in (8, 14, 25):
        folder = tmp_path / f"killed-{number}"
        folder.mkdir()
        job = Job(recipe=path, folder=folder, options=("-q", "--threads", "1"), settings=settings)
        assert job.run(*strace([f"pwrite64:signal=SIGKILL:when={number}"])).returncode == -9
        assert job.left() == [".out.part"]
        told: list[tuple[int, int]] = []
        done = api.apply(
            api.plan(path, output=job.out),
            threads=1,
            progress=lambda at, total, told=told: told.append((at, total)),  # type: ignore[misc]
        )
        assert done.tensors_resumed > 0
        assert told == sorted(told)
        assert all(at <= total for at, total in told)
        assert job.files() == file_bytes(path.parent / "out")


def test_ctrl_c_while_it_looks_ends_it_at_once(bench: Workbench) -> None:
    path = bench.recipe({"ties": TIES}, {name: {} for name in NAMES[:3]})
    for name in NAMES[:3]:
        hollow(path.parent / name, (10**5, 10**4), "BF16", depth=2)
    shard = path.parent / ".out.part" / "checkpoint" / "model.safetensors"
    done, seconds = stopped_by(signal.SIGINT, shard.exists, "apply", path, "-q")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\ninterrupted\n")
    assert sorted(path.parent.iterdir()) == sorted(
        path.parent / n for n in ("recipe.yaml", *NAMES[:3])
    )
    assert seconds < 2


@pytest.mark.parametrize("threads", [1, 3])
def test_tensor_that_cannot_be_read_is_named(
    threads: int, bench: Workbench, tmp_path: Path
) -> None:
    path = bench.recipe({"ties": TIES}, tiny_models(NAMES[:3], depth=3))
    job = Job(recipe=path, folder=tmp_path, options=("-q", "--threads", str(threads)))
    done = job.run(*strace([f"{call}:error=EIO:when=9" for call in ("preadv", "preadv2")]))
    assert done.returncode != 0
    assert "model.safetensors: reading 'model." in done.stderr
    assert "Traceback" not in done.stderr
    assert not job.left() or job.left() == ["0"]


def test_bytes_are_the_same_without_compiled_arithmetic(bench: Workbench, tmp_path: Path) -> None:
    models = tiny_models(NAMES, dtype="BF16")
    rows = {"mlp.rows": (7, 40_003), "mlp.long": (2, SPAN + 3), "mlp.one": (1,)}
    models = {n: t | layer(rows, dtype="BF16", seed=i) for i, (n, t) in enumerate(models.items())}
    dare = {"dare_linear": {"base": "base", "models": ["m1", "m2"], "density": 0.3}}
    della = {"della": {"base": "base", "models": ["m2", "m3"], "density": 0.6}}
    rowwise = {"nuslerp": {"models": ["m1", "m3"], "weights": [1, 2], "along": "rows"}}
    path = bench.recipe({"ties": TIES | {"models": [dare, della, rowwise]}}, models)
    found = []
    for kernels in ("compiled", "numpy"):
        out = tmp_path / kernels
        subprocess.run(
            [*ENGINE, "apply", str(path), "-o", str(out), "-q"],
            env=os.environ | {"TENSORSURGEON_KERNELS": kernels},
            check=True,
        )
        found.append(file_bytes(out))
    assert found[0] == found[1]
