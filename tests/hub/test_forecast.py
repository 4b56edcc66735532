"""What a plan says of fetching and streaming, before anything is read, is what happens."""

import json
import logging
import subprocess
import sys

import pytest

from tests.cli.checkpoints import llama_config, llama_tensors, write_checkpoint
from tests.cli.processes import namespace
from tests.hub.test_pull import MODULE, ROOT, Desk, desk

__all__ = ["desk"]

SLERP = "{slerp: {models: [a, b], t: 0.4}}"

GROWN = "{depth_up_scale: {model: a, remove: 1}}"

PEAK = (sys.executable, "-I", "-S", str(ROOT / "tests" / "real" / "peak.py"))


def full_cache(desk: Desk) -> tuple[str, ...]:
    desk.hub.home.mkdir(exist_ok=True)
    return namespace(f"mount -t tmpfs -o size=300k none {desk.hub.home}")


def test_plan_says_whether_the_cache_has_room(desk: Desk) -> None:
    planned = json.loads(desk.run("plan", desk.recipe(), "--json").out)
    assert planned["cache_free"] > 0
    assert not planned["streams"]
    shown = desk.run("plan", desk.recipe()).out
    assert "fetches     762 kB in 7 files, to the cache of " in shown
    done = desk.run_under(full_cache(desk), "plan", desk.recipe(), "--json")
    assert json.loads(done.out)["streams"]
    assert json.loads(done.out)["cache_free"] < 300_000
    shown = desk.run_under(full_cache(desk), "plan", desk.recipe()).out
    assert "streams     762 kB in 7 files: the cache has no room for that" in shown


@pytest.mark.parametrize(("threads", "tensors"), [(1, 1), (2, 2)])
def test_plan_says_what_is_spooled_where_tensors_are_streamed(
    threads: int, tensors: int, desk: Desk
) -> None:
    path = desk.recipe(SLERP)
    done = desk.run("plan", path, "--json", "--threads", str(threads))
    largest = 512 * 64 * 2  # bytes of an embedding, of which two are read for each result
    assert json.loads(done.out)["spool_if_streamed"] == tensors * 2 * largest
    shown = desk.run("plan", path, "--threads", str(threads)).out
    assert "spools      with --stream at most " in shown
    assert "spools      at most " in desk.run_under(full_cache(desk), "plan", path).out


def test_what_is_read_once_is_not_spooled(desk: Desk) -> None:
    assert json.loads(desk.run("plan", desk.recipe(), "--json").out)["spool_if_streamed"] == 0
    assert "spools" not in desk.run("plan", desk.recipe()).out
    assert desk.run("apply", desk.recipe(SLERP)).code == 0
    planned = json.loads(desk.run("plan", desk.recipe(SLERP), "--json").out)
    assert planned["spool_if_streamed"] == 0  # all is here
    assert planned["cache_free"] is None


@pytest.mark.parametrize("result", [GROWN, "{linear: {models: [a, b]}}"])
def test_budget_of_memory_is_kept_while_shards_are_fetched(result: str, desk: Desk) -> None:
    for seed, name in enumerate("ab"):
        tensors = llama_tensors(4, hidden=512, vocab=8192, seed=seed)
        config = llama_config(4, hidden=512, vocab=8192)
        folder = write_checkpoint(desk.folder / name, tensors, config, shards=4)
        assert sum(p.stat().st_size for p in folder.glob("*.safetensors")) > 30_000_000
        desk.hub.add_folder(f"org/large-{name}", folder)
    path = desk.recipe(result, a="org/large-a", b="org/large-b")
    least = desk.run("apply", path, "--max-memory", "60MB")
    assert least.code == 6, least.err
    budget = least.err.partition("--max-memory ")[2].split()[0]
    done = subprocess.run(
        [*PEAK, *MODULE, "apply", str(path), "--max-memory", budget],
        env=desk.hub.environment(PYTHONPATH=str(ROOT)),
        cwd=desk.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "fetching" in done.stderr
    assert int(done.stdout.splitlines()[-1]) < int(budget.removesuffix("MB")) * 1_000_000


def test_headers_of_a_repository_are_limited_in_all(desk: Desk) -> None:
    folder = desk.folder / "long"
    folder.mkdir()
    weight_map = {}
    metadata = {str(i): "x" * 4_900_000 for i in range(5)}
    for number in range(1, 13):
        name, shard = f"model.layers.{number}.w", f"model-{number:05}-of-00012.safetensors"
        entry = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
        header = json.dumps({"__metadata__": metadata, name: entry}).encode()
        (folder / shard).write_bytes(len(header).to_bytes(8, "little") + header + b"data")
        weight_map[name] = shard
    (folder / "config.json").write_text(json.dumps(llama_config(12)))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    desk.hub.add_folder("org/long", folder)
    said = "has shards whose headers are longer than 100000000 bytes in all"
    assert said in desk.refused("inspect", "org/long")
    assert not desk.hub.log.select(host="cdn", target="model-00012")
    assert said in desk.refused("inspect", folder)


def test_client_is_hushed_when_it_is_used_and_not_before() -> None:
    program = (
        "import logging, tensorsurgeon.hub\n"
        "(handler,) = logging.getLogger('huggingface_hub').handlers\n"
        "print(handler.level)\n"
        "from tensorsurgeon.hub.requests import headers\n"
        "headers()\n"
        "print(handler.level)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == [str(logging.NOTSET), str(logging.ERROR)], done.stderr
