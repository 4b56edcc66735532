"""What is said of a push beforehand, and while it runs, is so: bytes, disk, memory, progress."""

import json
import sys
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tensorsurgeon import api
from tests.cli.checkpoints import llama_config
from tests.cli.processes import namespace
from tests.hub.desk import (
    REPO,
    ROOT,
    Desk,
    desk,
    made_by_apply,
    pushed_files,
    two_models,
    write_recipe,
)
from tests.hub.faults import Fail
from tests.hub.quick import quick

__all__ = ["desk", "quick"]

PLAN = 6

PAGE = 4096

LAYERS_TWICE = "{stack: [{model: a}, {model: a}]}"

RESULTS = {
    "stack": LAYERS_TWICE,
    "linear": "{stack: [{model: {linear: {models: [a, b]}}}, {model: a, layers: [0, 3]}]}",
    "block_expansion": "{block_expansion: {model: a, every: 1}}",
}

PEAK = (sys.executable, "-I", "-S", str(ROOT / "tests" / "real" / "peak.py"))

PUSHES = {"--push": (), "--push-only": ("--push-only",)}

each_push = pytest.mark.parametrize("options", PUSHES.values(), ids=PUSHES)


def push_only(desk: Desk) -> list[tuple[int, int]]:
    """What a run that keeps nothing tells of how far it is."""
    plan = api.plan(desk.folder / "recipe.yaml", push=REPO, push_only=True)
    told = list[tuple[int, int]]()
    api.apply(plan, progress=lambda done, total: told.append((done, total)))
    return told


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_progress_never_falls_and_ends_at_its_total(result: str, desk: Desk) -> None:
    two_models(desk)
    write_recipe(desk, result)
    want = made_by_apply(desk)
    told = push_only(desk)
    plan = api.plan(desk.folder / "recipe.yaml", push=REPO, push_only=True)
    assert {total for _, total in told} == {plan.bytes_read + plan.bytes_written}
    done = [done for done, _ in told]
    assert done == sorted(done)
    assert 0 <= done[0] < done[-1] == told[-1][1]
    assert len(set(done)) > len(plan.shards)
    assert pushed_files(desk) == want


def test_progress_of_a_run_that_goes_on_never_falls_and_ends_at_its_total(desk: Desk) -> None:
    two_models(desk)
    write_recipe(desk, LAYERS_TWICE)
    arguments = ("apply", desk.folder / "recipe.yaml", "--push", REPO, "--push-only")
    rule = desk.hub.faults.add(Fail(403), method="PUT", skip=3, times=None)
    desk.refused(*arguments)
    assert rule.hits
    desk.hub.faults.clear()
    told = push_only(desk)
    done = [done for done, _ in told]
    assert done == sorted(done)
    assert done[-1] == told[-1][1]


def planned(desk: Desk, *options: str) -> dict[str, Any]:
    """A plan as JSON."""
    done = desk.call("plan", desk.folder / "recipe.yaml", "--push", REPO, "--json", *options)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def times_read(plan: dict[str, Any], *, by_shard: bool) -> int:
    """Bytes to read where what is one and the same, at the same place of a page, is read once."""
    different = {
        (tensor["expression"], tensor["offset"] % PAGE, tensor["shard"] if by_shard else ""): tensor
        for tensor in plan["tensors"]
    }
    return sum(int(tensor["bytes_read"]) for tensor in different.values())


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_what_several_shards_share_is_planned_to_be_read_for_each(result: str, desk: Desk) -> None:
    two_models(desk)
    write_recipe(desk, result)
    whole, only = planned(desk), planned(desk, "--push-only")
    assert whole["bytes_read"] == times_read(whole, by_shard=False)
    assert only["bytes_read"] == times_read(only, by_shard=True)
    assert (only["bytes_read"] > 1.5 * whole["bytes_read"]) == (result == LAYERS_TWICE)
    write_recipe(desk, result, output="{path: ./out}")
    assert planned(desk, "--push-only")["bytes_read"] == planned(desk)["bytes_read"]


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_what_is_streamed_is_what_was_planned_to_be_read(result: str, desk: Desk) -> None:
    two_models(desk)
    for name in "ab":
        desk.hub.add_folder(f"org/{name}", desk.folder / name)
    write_recipe(desk, result, a="org/a", b="org/b")
    plan = planned(desk, "--push-only")  # and has all headers
    desk.hub.log.clear()
    recipe = desk.folder / "recipe.yaml"
    done = desk.call("apply", recipe, "--push", REPO, "--push-only", "--stream")
    assert done.code == 0, done.err
    spans = [
        exchange.sent
        for exchange in desk.hub.log.select(host="cdn", method="GET")
        if exchange.headers["range"] != "bytes=0-0"  # asks for a shard's signed address
    ]
    assert sum(spans) == plan["bytes_read"]


def test_disk_that_is_enough_for_a_shard_is_planned_with(desk: Desk) -> None:
    two_models(desk)
    write_recipe(desk)
    disk = desk.folder.parent / "disk"
    disk.mkdir()
    small = namespace(f"mount -t tmpfs -o size=190k none {disk}")
    plan = ("plan", desk.folder / "recipe.yaml", "-o", disk / "out", "--push", REPO)
    only = desk.run(*plan, "--push-only", wrapper=small)
    assert only.code == 0, only.err
    assert f"{REPO}, shard by shard; none is kept" in only.out
    whole = desk.run(*plan, wrapper=small)
    assert whole.code == PLAN
    assert f"pushed to   {REPO}\n" in whole.out
    assert "layer map: 3 layers" in whole.out
    assert "needs" in whole.err
    assert "free" in whole.err
    as_json = desk.run(*plan, "--json", wrapper=small)
    assert as_json.code == PLAN
    assert json.loads(as_json.out)["push"] == REPO
    assert not desk.hub.log.select()


def test_disk_that_lacks_room_for_a_shard_is_told_with_the_plan(desk: Desk) -> None:
    two_models(desk)
    write_recipe(desk)
    disk = desk.folder.parent / "disk"
    disk.mkdir()
    tiny = namespace(f"mount -t tmpfs -o size=48k none {disk}")
    plan = ("plan", desk.folder / "recipe.yaml", "-o", disk / "out", "--push", REPO)
    done = desk.run(*plan, "--push-only", wrapper=tiny)
    assert done.code == PLAN
    assert "shard by shard" in done.out
    assert "a smaller output: max_shard_size may fit" in done.err


@pytest.mark.parametrize(("options", "streams"), [((), True), (("--push-only",), False)])
def test_cache_has_room_beside_a_shard_where_it_lacks_it_beside_the_result(
    options: tuple[str, ...], streams: bool, desk: Desk
) -> None:
    desk.model("a")
    desk.hub.add_folder("org/a", desk.folder / "a")
    write_recipe(desk, "{depth_up_scale: {model: a, remove: 1}}", a="org/a")
    disk = desk.folder.parent / "disk"
    disk.mkdir()
    home = namespace(f"mount -t tmpfs -o size=640k none {disk}")
    command = ("plan", desk.folder / "recipe.yaml", "-o", disk / "out", "--push", REPO)
    done = desk.run(*command, "--json", *options, wrapper=home, HF_HOME=str(disk))
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    fetched, written = sum(plan["fetched"].values()), plan["bytes_written"]
    assert max(fetched, written) < plan["cache_free"] < fetched + written
    assert plan["streams"] == streams


def large_model(desk: Desk, *, tokenizer: int) -> None:
    """A model of 100 MB, `a`, with a tokenizer of so many bytes."""
    folder, hidden, vocab = desk.folder / "a", 1024, 8192
    folder.mkdir()
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "lm_head.weight": (vocab, hidden)}
    shapes |= {"model.norm.weight": (hidden,)}
    for layer in range(4):
        before = f"model.layers.{layer}"
        shapes |= {f"{before}.self_attn.{w}_proj.weight": (hidden, hidden) for w in "qkvo"}
        shapes |= {f"{before}.mlp.{w}_proj.weight": (2 * hidden, hidden) for w in ("up", "gate")}
        shapes |= {f"{before}.mlp.down_proj.weight": (hidden, 2 * hidden)}
        shapes |= {
            f"{before}.{norm}_layernorm.weight": (hidden,) for norm in ("input", "post_attention")
        }
    tensors = {
        name: np.full(shape, number, np.float16)
        for number, (name, shape) in enumerate(shapes.items())
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = llama_config(4, hidden=hidden, vocab=vocab, dtype="F16")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps({"text": "x" * (tokenizer - 12)}))
    assert (folder / "tokenizer.json").stat().st_size == tokenizer


@each_push
@pytest.mark.parametrize("tokenizer", [10_000_000, 12_000_000])
def test_least_budget_of_memory_is_kept(
    tokenizer: int, options: tuple[str, ...], desk: Desk
) -> None:
    desk.hub.registry.part_size = 1_000_000_000
    large_model(desk, tokenizer=tokenizer)
    recipe = write_recipe(
        desk, "{linear: {models: [a, a]}}", output="{path: ./out, max_shard_size: 30MB}"
    )
    command = ("apply", recipe, "--push", REPO, *options)
    least = desk.refused(*command, "--max-memory", "20MB", code=PLAN)
    budget = least.partition("--max-memory ")[2].split()[0]
    assert budget.endswith("MB")
    done = desk.run(*command, "--max-memory", budget, wrapper=PEAK)
    for path in desk.folder.parent.rglob("*"):
        if path.is_file() and path.stat().st_size > 1_000_000:
            path.unlink()
    assert done.code == 0, done.err
    assert desk.uploaded() > 100_000_000
    assert int(done.out.splitlines()[-1]) < int(budget.removesuffix("MB")) * 1_000_000
