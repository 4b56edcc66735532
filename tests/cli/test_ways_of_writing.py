"""However a system can copy and write, the bytes are the same."""

from pathlib import Path

import pytest

from tests.cli.checkpoints import file_bytes, llama_config, odd_tensors, write_checkpoint
from tests.cli.conftest import Command, WriteRecipe
from tests.cli.processes import fault, namespace, run_under

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


WAYS = {
    "without direct writes, by the kernel": ("ramfs", "disk/a", ()),
    "by a kernel that has no call for it": (
        "ramfs",
        "disk/a",
        fault("copy_file_range:error=ENOSYS"),
    ),
    "by a kernel that gives up on the way": (
        "ramfs",
        "disk/a",
        fault("copy_file_range:error=EXDEV:when=2+"),
    ),
    "from one file system to another": ("ramfs", "a", ()),
    "in memory": ("tmpfs", "disk/a", ()),
}
"""The file system of the output, where the source lies, and what the kernel says."""


@pytest.mark.parametrize(("kind", "source", "wrapper"), WAYS.values(), ids=WAYS)
def test_bytes_are_the_same_however_they_are_copied(
    kind: str,
    source: str,
    wrapper: tuple[str, ...],
    expected: dict[str, bytes],
    tmp_path: Path,
) -> None:
    disk, made = tmp_path / "disk", tmp_path / "made"
    disk.mkdir()
    mounts = namespace(
        setup=f"mount -t {kind} none '{disk}'; cp -r '{tmp_path}/a' '{disk}'",
        then=f"cp -r '{disk}/out' '{made}'",
    )
    flags = ("-q", "-o", disk / "out", "-s", f"a={tmp_path / source}")
    done = run_under((*mounts, *wrapper), "apply", tmp_path / "recipe.yaml", *flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert file_bytes(made) == expected


@pytest.mark.usefixtures("expected")
def test_kernel_copies_by_itself_where_it_cannot_be_bypassed(tmp_path: Path) -> None:
    disk, trace = tmp_path / "disk", tmp_path / "trace"
    disk.mkdir()
    mounts = namespace(f"mount -t ramfs none '{disk}'; cp -r '{tmp_path}/a' '{disk}'")
    strace = ("strace", "-f", "-o", str(trace), "-e", "trace=copy_file_range,preadv,preadv2")
    flags = ("-q", "-o", disk / "out", "-s", f"a={disk / 'a'}", "-s", f"b={disk / 'a'}")
    done = run_under((*mounts, *strace), "apply", tmp_path / "recipe.yaml", *flags)
    assert done.returncode == 0
    calls = trace.read_text()
    assert calls.count("copy_file_range(") >= 24
    assert "preadv" not in calls  # the average of a model with itself is a copy as well
