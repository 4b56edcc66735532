"""Places where the result cannot go: refused before the start, or given up without a trace."""

import re
from pathlib import Path

import pytest

from tests.cli.checkpoints import (
    CARD,
    file_bytes,
    tiny_llama,
)
from tests.cli.conftest import Command, Refused, WriteRecipe, listing
from tests.cli.processes import fault, namespace, run_under

SOURCE, PLAN, OUTPUT = 5, 6, 7
"""Exit codes: what cannot be read, what cannot be done, what went wrong while writing."""

COPY = "models: {a: ./a}\nresult: a\n"
MERGE = "models: {a: ./a, b: ./b}\nresult: {linear: {models: [a, b]}}\n"


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("output", ["a", "a/inside/of/it", ".", "link", "link/inside", "a/../a"])
def test_output_inside_around_or_at_a_source_is_refused(
    output: str, tmp_path: Path, recipe: WriteRecipe, refused: Refused
) -> None:
    (tmp_path / "link").symlink_to("a")
    path = recipe(COPY + f"output: {{path: {output}}}\n")
    message = refused("apply", path, "--overwrite", code=PLAN)
    assert f"lies in, around or at the source {tmp_path / 'a'}" in message
    assert message.endswith("\n  fix: choose an output folder of its own\n")


@pytest.mark.usefixtures("models")
def test_output_beside_a_source_with_a_longer_name_is_no_clash(
    tmp_path: Path, recipe: WriteRecipe, command: Command
) -> None:
    assert command("apply", recipe(COPY), "-o", tmp_path / "a-merged").code == 0


@pytest.mark.usefixtures("models")
def test_existing_output_is_refused_and_overwritten_only_when_asked(
    tmp_path: Path, recipe: WriteRecipe, refused: Refused, command: Command
) -> None:
    old = tiny_llama(tmp_path / "out", 3, shards=3)
    (old / "README.md").write_text("of the old one")
    path = recipe(MERGE + "output: {path: ./out}\n")
    assert refused("apply", path, code=PLAN) == (
        f"{old}: is already there\n  fix: --overwrite replaces it\n"
    )
    assert command("apply", path, "--overwrite").code == 0
    made = {*CARD, "config.json", "model.safetensors", "tensorsurgeon.json"}
    assert file_bytes(old).keys() == made
    assert (old / "README.md").read_text() != "of the old one"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "b", "out", "recipe.yaml"]


@pytest.mark.usefixtures("models")
def test_folder_that_holds_something_else_is_never_replaced(
    tmp_path: Path, recipe: WriteRecipe, refused: Refused
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter-1.tex").write_text("Years of work.")
    path = recipe(COPY)
    message = refused("apply", path, "-o", tmp_path / "thesis", "--overwrite", code=PLAN)
    assert "is not replaced: it has files, but no config.json, and so is no checkpoint" in message


@pytest.mark.usefixtures("models")
def test_file_and_link_are_never_replaced(
    tmp_path: Path, recipe: WriteRecipe, refused: Refused
) -> None:
    (tmp_path / "file").write_text("kept")
    tiny_llama(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to("elsewhere")
    (tmp_path / "dangling").symlink_to("nowhere")
    path = recipe(COPY)
    for name in ("file", "link", "dangling"):
        message = refused("apply", path, "-o", tmp_path / name, "--overwrite", code=PLAN)
        assert message == f"{tmp_path / name}: is not a folder, and so not replaced\n"


@pytest.mark.usefixtures("models")
def test_output_below_a_file_is_refused(
    tmp_path: Path, recipe: WriteRecipe, refused: Refused
) -> None:
    (tmp_path / "file").write_text("kept")
    message = refused("apply", recipe(COPY), "-o", tmp_path / "file" / "x" / "y", code=PLAN)
    assert f"cannot be made: {tmp_path / 'file'} is not a folder" in message


@pytest.mark.usefixtures("models")
def test_full_disk_is_foreseen(tmp_path: Path, recipe: WriteRecipe) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    # A file system of two pages: the result's header alone takes one, its card another.
    setup = f"mount -t tmpfs -o size=8k none '{disk}'; echo x > '{disk}/x'"
    done = run_under(namespace(setup), "apply", recipe(COPY), "-o", disk / "out")
    assert done.returncode == PLAN
    assert re.match(rf"{re.escape(str(disk / 'out'))}: needs [\d.]+ kB, but the disk", done.stderr)
    assert done.stderr.endswith(
        f" kB, but the disk of {disk} has 4.1 kB free\n"
        "  fix: free space there, or choose another disk with -o\n"
    )


@pytest.mark.usefixtures("models")
def test_read_only_disk_is_refused(tmp_path: Path, recipe: WriteRecipe) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    setup = f"mount --bind '{disk}' '{disk}'; mount -o remount,bind,ro '{disk}'"
    done = run_under(namespace(setup), "apply", recipe(COPY), "-o", disk / "new" / "out")
    assert done.returncode == PLAN
    assert done.stderr == f"{disk / 'new' / 'out'}: cannot be made: {disk} is not writable\n"


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("inodes", range(2, 6))
def test_disk_that_turns_out_full_is_left_as_it_was(
    inodes: int, tmp_path: Path, recipe: WriteRecipe
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    # Bytes enough, as the forecast sees, but too few files may be made: ENOSPC on the way.
    setup = f"mount -t tmpfs -o nr_inodes={inodes} none '{disk}'"
    path = recipe(MERGE + "output: {path: ./disk/new/folder/out}\n")
    done = run_under(namespace(setup, then=f"find '{disk}'"), "apply", path, "-q")
    assert done.stderr == (
        f"{disk / 'new/folder/out'}: writing failed: No space left on device\n"
        "  fix: free space on that disk, or choose another with -o\n"
    )
    assert done.returncode == OUTPUT
    assert done.stdout == f"{disk}\n"


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("text", [COPY, MERGE], ids=["copied", "computed"])
def test_limit_of_file_size_leaves_nothing(text: str, tmp_path: Path, recipe: WriteRecipe) -> None:
    path = recipe(text + "output: {path: ./new/folder/out}\n")
    before = listing(tmp_path)
    done = run_under(("prlimit", "--fsize=6000"), "apply", path, "-q")
    assert done.returncode == OUTPUT
    assert done.stderr == (
        f"{tmp_path / 'new/folder/out'}: writing failed: File too large\n"
        "  fix: a file size limit is in force; a smaller output: max_shard_size may fit\n"
    )
    assert listing(tmp_path) == before


FAULTS = {
    "the first write": (MERGE, "pwrite64:error=ENOSPC:when=1", "No space left on device"),
    "a later write": (MERGE, "pwrite64:error=EDQUOT:when=4", "Disk quota exceeded"),
    "a write of a copy": (COPY, "pwrite64:error=ENOSPC:when=5", "No space left on device"),
    "the size of a shard": (COPY, "ftruncate:error=EFBIG:when=3", "File too large"),
    "the flush of a shard": (COPY, "fdatasync:error=EIO:when=2", "Input/output error"),
    "the flush of a folder": (COPY, "fsync:error=EIO:when=2", "Input/output error"),
}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("text", "injected", "reason"), FAULTS.values(), ids=FAULTS.keys())
def test_disk_that_fails_while_writing_leaves_nothing(
    text: str, injected: str, reason: str, tmp_path: Path, recipe: WriteRecipe
) -> None:
    path = recipe(text + "output: {path: ./out, max_shard_size: 2kB}\n")
    before = listing(tmp_path)
    done = run_under(fault(injected), "apply", path, "-q")
    assert done.stderr.startswith(f"{tmp_path / 'out'}: writing failed: {reason}\n")
    assert done.returncode == OUTPUT
    assert listing(tmp_path) == before


LATE_FAULTS = {
    "the flush of the checkpoint": "fsync:error=EIO:when=4",
    "the last rename": "rename:error=EIO:when=1",
    "the flush after it": "fsync:error=EIO:when=5",
}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("injected", LATE_FAULTS.values(), ids=LATE_FAULTS)
def test_disk_that_fails_when_all_tensors_are_made_keeps_them(
    injected: str, tmp_path: Path, recipe: WriteRecipe, command: Command
) -> None:
    path = recipe(COPY + "output: {path: ./out}\n")
    done = run_under(fault(injected), "apply", path, "-q")
    assert done.returncode == OUTPUT
    assert "writing failed: Input/output error" in done.stderr
    assert "21 tensors are kept in" in done.stderr
    again = command("apply", path)
    assert again.code == 0
    assert "an interrupted run had" in again.err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "b", "out", "recipe.yaml"]


@pytest.mark.usefixtures("models")
def test_replacing_that_fails_brings_the_old_checkpoint_back(
    tmp_path: Path, recipe: WriteRecipe
) -> None:
    old = tiny_llama(tmp_path / "out", 3, seed=9)
    (old / "README.md").write_text("of the old one")
    path = recipe(COPY + "output: {path: ./out}\n")
    before = listing(old)
    # Without an exchange the old one steps aside, and the second rename is the new one's.
    injected = (*fault("renameat2:error=EINVAL"), "-e", "inject=rename:error=EIO:when=2")
    injected = tuple("trace=renameat2,rename" if x == "trace=renameat2" else x for x in injected)
    done = run_under(injected, "apply", path, "-q", "--overwrite")
    assert done.returncode == OUTPUT
    assert listing(old) == before


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("text", [COPY, MERGE], ids=["copied", "computed"])
@pytest.mark.parametrize(
    ("outcome", "problem"),
    [
        ("error=EIO", "failed at byte .*: Input/output error"),
        ("retval=0", "ended at byte .*, inside 'model.*': it was cut short while it was read"),
    ],
    ids=["unreadable", "cut short"],
)
def test_source_that_cannot_be_read_to_its_end_is_named_and_nothing_left(
    text: str, outcome: str, problem: str, tmp_path: Path, recipe: WriteRecipe
) -> None:
    path = recipe(text + "output: {path: ./out}\n")
    before = listing(tmp_path)
    injected = fault(f"preadv,preadv2:{outcome}:when=2")
    done = run_under(injected, "apply", path, "-q", "--threads", "1")
    assert done.returncode == SOURCE
    assert re.search(f"/[ab]/model.safetensors: .*{problem}\n", done.stderr)
    assert listing(tmp_path) == before
