"""However a system can write, the bytes are the same."""

import os
from pathlib import Path

import pytest

from tests.cli.checkpoints import file_bytes, llama_config, odd_tensors, write_checkpoint
from tests.cli.conftest import Command, WriteRecipe
from tests.cli.processes import namespace, run_under

RECIPE = """\
models:
  a: ./a
  b: ./b
  merged: {linear: {models: [a, b], weights: [0.3, [{match: "*.spans", value: 0}, 0.7]]}}
  expanded: {block_expansion: {model: a, every: 1, zero: [a_span, above_*]}}
result: {stack: [{model: a}, {model: merged}, {model: expanded}, {model: b}]}
"""
"""Tensors that are copied, computed and zero."""


@pytest.fixture
def expected(tmp_path: Path, recipe: WriteRecipe, command: Command) -> dict[str, bytes]:
    """What the recipe makes here, where nothing is in the way; it lies in `recipe.yaml`."""
    for seed, name in enumerate("ab"):
        write_checkpoint(tmp_path / name, odd_tensors(seed=seed), llama_config(1))
    assert command("apply", recipe(RECIPE), "-o", tmp_path / "expected").code == 0
    return file_bytes(tmp_path / "expected")


@pytest.mark.parametrize("kind", ["ramfs", "tmpfs"])
def test_bytes_are_the_same_on_file_systems_of_other_kinds(
    kind: str,
    expected: dict[str, bytes],
    tmp_path: Path,
) -> None:
    disk, made = tmp_path / "disk", tmp_path / "made"
    disk.mkdir()
    mounts = namespace(
        setup=f"mount -t {kind} none '{disk}'",
        then=f"cp -r '{disk}/out' '{made}'",
    )
    flags = ("-q", "-o", disk / "out")
    done = run_under(mounts, "apply", tmp_path / "recipe.yaml", *flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert file_bytes(made) == expected


@pytest.mark.parametrize("most", [1000, 4096, 10_000])
def test_bytes_are_the_same_where_the_system_takes_few_at_a_time(
    most: int,
    expected: dict[str, bytes],
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Direct writes too, of which the rest then begins inside of a page."""
    write, short = os.pwrite, []

    def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        short.append(len(data) > most)
        return write(descriptor, data[:most], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    assert command("apply", tmp_path / "recipe.yaml", "-o", tmp_path / "out").code == 0
    assert sum(short) > 10
    assert file_bytes(tmp_path / "out") == expected
