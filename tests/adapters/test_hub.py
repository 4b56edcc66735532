"""Adapters of the Hub: planned from kilobytes, fetched or streamed, with the bytes of folders."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.adapters.folders import PREFIX, adapter_config, factors, write_adapter
from tests.cli.checkpoints import Tensors, llama_config, llama_tensors, write_checkpoint
from tests.hub.conftest import hub
from tests.hub.loopback import LoopbackHub
from tests.hub.test_pull import Desk, without_manifest

__all__ = ["hub"]

HIDDEN = 640
RECIPE = """models: {{base: {base}}}
result: {{lora: {{model: base, adapter: {adapter}}}}}
output: {{path: ./out}}
"""


@pytest.fixture
def desk(hub: LoopbackHub, tmp_path: Path) -> Desk:
    """A base and an adapter on the Hub, and the same as folders."""
    folders = tmp_path / "folders"
    config = llama_config(2, hidden=HIDDEN, vocab=512)
    write_checkpoint(folders / "base", llama_tensors(2, hidden=HIDDEN, vocab=512), config)
    adapter: Tensors = {}
    for layer in range(2):
        shape = (HIDDEN, 2 * HIDDEN)
        module = f"model.layers.{layer}.mlp.down_proj"
        adapter |= factors(module, shape, rank=40, magnitude=True, seed=layer)
    adapter |= factors("model.embed_tokens", (HIDDEN, 512), rank=40, magnitude=True, embedding=True)
    adapter |= {f"{PREFIX}model.norm.weight": np.ones(HIDDEN, np.float32)}
    write_adapter(folders / "adapter", adapter, adapter_config(r=40, use_dora=True))
    (folders / "adapter/README.md").write_text("---\nlicense: mit\n---\n")
    (folders / "adapter/optimizer.bin").write_bytes(bytes(1000))
    for name in ("base", "adapter"):
        hub.add_folder(f"org/{name}", folders / name)
    (tmp_path / "desk").mkdir()
    return Desk(tmp_path / "desk", hub)


def recipe(desk: Desk, base: str = "org/base", adapter: str = "org/adapter") -> Path:
    path = desk.folder / "recipe.yaml"
    path.write_text(RECIPE.format(base=base, adapter=adapter))
    return path


@pytest.fixture
def want(desk: Desk) -> dict[str, bytes]:
    """What the folders give."""
    folders = desk.folder.parent / "folders"
    path = recipe(desk, *(str(folders / name) for name in ("base", "adapter")))
    done = desk.run("apply", path, "-o", folders / "merged")
    assert done.code == 0, done.err
    return without_manifest(folders / "merged")


@pytest.mark.parametrize("options", [[], ["--stream"], ["--stream", "--threads", "2"]], ids=str)
def test_adapter_of_the_hub_gives_the_bytes_of_the_folders(
    options: list[str], desk: Desk, want: dict[str, bytes]
) -> None:
    done = desk.run("apply", recipe(desk), *options)
    assert done.code == 0, done.err
    assert without_manifest(desk.folder / "out") == want
    manifest = json.loads((desk.folder / "out" / "tensorsurgeon.json").read_text())
    source = manifest["sources"]["adapter org/adapter"]
    assert source["repo"] == "org/adapter"
    assert source["commit"] == desk.hub.repo("org/adapter").resolve("main").oid
    assert list(source["files"]) == ["adapter_model.safetensors"]
    assert desk.run("verify", "out").code == 0
    assert not any("optimizer" in exchange.target for exchange in desk.hub.log.select())


def test_no_byte_is_streamed_twice(desk: Desk) -> None:
    assert desk.run("apply", recipe(desk), "--stream").code == 0
    folders = desk.folder.parent / "folders"
    stored = sum(path.stat().st_size for path in folders.rglob("*.safetensors"))
    assert desk.hub.log.sent(host="cdn") < stored + 6 * 8192


def test_plan_reads_headers_only(desk: Desk) -> None:
    done = desk.run("plan", recipe(desk))
    assert done.code == 0, done.err
    assert "source adapter org/adapter  org/adapter@" in done.out
    assert desk.hub.log.sent() < 60_000
    assert not list(desk.hub.home.rglob("*.safetensors"))


def test_offline_the_cache_is_enough(desk: Desk, want: dict[str, bytes]) -> None:
    assert desk.run("apply", recipe(desk)).code == 0
    done = desk.run("apply", recipe(desk), "--overwrite", HF_HUB_OFFLINE="1")
    assert done.code == 0, done.err
    assert without_manifest(desk.folder / "out") == want


def test_repository_without_an_adapter_is_refused(desk: Desk) -> None:
    told = desk.refused("plan", recipe(desk, adapter="org/base@main"))
    assert "org/base@main/adapter_config.json: is not in the repository" in told
    assert "there is no such model repository" in desk.refused("plan", recipe(desk, adapter="o/no"))
    told = desk.refused("plan", recipe(desk, base="org/adapter"))
    assert "org/adapter@main/config.json: is not in the repository" in told
    assert "fix: apply it to the model it was trained over" in told


def test_adapter_that_is_damaged_is_told_with_its_repository(desk: Desk) -> None:
    config = json.dumps(adapter_config(peft_type="VERA"))
    weights = (desk.folder.parent / "folders/adapter/adapter_model.safetensors").read_bytes()
    files = {"adapter_config.json": config, "adapter_model.safetensors": weights}
    desk.hub.add_repo("org/vera", files)
    told = desk.refused("plan", recipe(desk, adapter="org/vera"))
    assert "org/vera@main/adapter_config.json: is of an adapter of type VERA" in told
    pickled = {"adapter_config.json": config, "adapter_model.bin": b"\x80\x04."}
    desk.hub.add_repo("org/pickled", pickled)
    told = desk.refused("plan", recipe(desk, adapter="org/pickled"))
    assert "has its weights in adapter_model.bin, a pickle" in told


def test_adapter_is_replaced_by_a_repository(desk: Desk, want: dict[str, bytes]) -> None:
    path = desk.folder / "recipe.yaml"
    models = "{base: org/base, m: {lora: {model: base, adapter: ./not-here}}}"
    path.write_text(f"models: {models}\nresult: m\noutput: {{path: ./out}}\n")
    done = desk.run("apply", path, "-s", "m=hf://org/adapter")
    assert done.code == 0, done.err
    assert without_manifest(desk.folder / "out") == want
    manifest = json.loads((desk.folder / "out" / "tensorsurgeon.json").read_text())
    commit = manifest["sources"]["adapter of m"]["commit"]
    assert f"-s m=hf://org/adapter@{commit}" in (desk.folder / "out" / "README.md").read_text()
