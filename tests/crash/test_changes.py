"""A source that changes while it is read is an error, never a mixture."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tensorsurgeon import api
from tensorsurgeon.errors import CheckpointError
from tests.cli.checkpoints import file_bytes, tiny_llama

FILES = (
    "config.json",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "tokenizer.json",
    "generation_config.json",
)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b" ")


def rewrite(path: Path) -> None:
    """The same bytes at another time."""
    status = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def replace(path: Path) -> None:
    """Another file of the same bytes, size and time."""
    status, other = path.stat(), path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


def remove(path: Path) -> None:
    path.unlink()


@pytest.fixture
def plan(tmp_path: Path) -> api.Plan:
    for seed, name in enumerate("ab"):
        tiny_llama(tmp_path / name, seed=seed, shards=2)
        for file in FILES[3:]:
            (tmp_path / name / file).write_text("{}")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "models: {a: ./a, b: ./b}\nresult: {linear: {models: [a, b]}}\noutput: {path: ./out}\n"
    )
    return api.plan(path)


@pytest.mark.parametrize("change", [grow, rewrite, replace, remove])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("when", ["before the run", "during the run"])
def test_source_that_changes_is_an_error(
    when: str, name: str, change: Callable[[Path], None], plan: api.Plan, tmp_path: Path
) -> None:
    changed = tmp_path / "a" / name
    before = file_bytes(tmp_path / "a")
    done: list[int] = []

    def progress(_done: int, _total: int) -> None:
        if not done:
            change(changed)
        done.append(1)

    if when == "before the run":
        progress(0, 0)
    with pytest.raises(CheckpointError) as refused:
        api.apply(plan, progress=progress)
    assert str(changed) in str(refused.value)
    assert not (tmp_path / "out").exists()
    changed.write_bytes(before[name])
    result = api.apply(api.plan(tmp_path / "recipe.yaml"))
    manifest = json.loads((result.path / "tensorsurgeon.json").read_bytes())
    assert manifest["layer_map"]


def test_remade_source_that_has_the_same_bytes_gives_the_same_manifest(
    plan: api.Plan, tmp_path: Path
) -> None:
    """A source made by this program names the time of its making; what is made of it does not."""
    first = tmp_path / "first.yaml"
    first.write_text("models: {a: ./a}\nresult: a\noutput: {path: ./middle}\n")
    second = tmp_path / "second.yaml"
    second.write_text("models: {m: ./middle}\nresult: m\noutput: {path: ./last}\n")

    def made() -> dict[str, object]:
        api.apply(api.plan(first), overwrite=True)
        api.apply(api.plan(second), overwrite=True)
        manifest: dict[str, object] = json.loads((tmp_path / "last/tensorsurgeon.json").read_text())
        del manifest["created"]
        return manifest

    assert made() == made()
