"""Links: what they lead to is read and copied only if it lies in the folder or the Hub's cache."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tensorsurgeon.checkpoint import INDEX_NAME, open_checkpoint
from tests.cli.checkpoints import tiny_llama
from tests.cli.conftest import Command, Refused, WriteRecipe

CHECKPOINT = 5
"""The exit code of a source that cannot be read."""

SHARD = "model-00001-of-00003.safetensors"
LEAVES = "is a link that leaves its folder\n"
FIX = "  fix: put the file itself there, or name the folder it is in\n"


def straight(folder: Path, name: str, elsewhere: Path) -> None:
    """The file itself is a link."""
    (folder / name).symlink_to(elsewhere / name)


def relative(folder: Path, name: str, elsewhere: Path) -> None:
    """The same, spelt from here."""
    (folder / name).symlink_to(Path("..", elsewhere.name, name))


def through_a_linked_folder(folder: Path, name: str, elsewhere: Path) -> None:
    """The file is a link that stays inside, but leads through one that does not."""
    (folder / "inside").symlink_to(elsewhere)
    (folder / name).symlink_to(Path("inside", name))


def by_two_links(folder: Path, name: str, elsewhere: Path) -> None:
    """The file is a link to a link."""
    (folder / "second").symlink_to(elsewhere / name)
    (folder / name).symlink_to("second")


@pytest.mark.parametrize("lead", [straight, relative, through_a_linked_folder, by_two_links])
@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
        "modeling.py",
        "tensorsurgeon.json",
    ],
)
def test_link_that_leaves_the_folder_is_refused(
    name: str,
    lead: Callable[[Path, str, Path], None],
    single: Path,
    tmp_path: Path,
    refused: Refused,
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / name).write_bytes(b"{}")
    if (single / name).exists():
        (single / name).rename(elsewhere / name)
    lead(single, name, elsewhere)
    message = refused("inspect", single, code=CHECKPOINT)
    assert message == f"{single / name}: {LEAVES}{FIX}"


@pytest.mark.parametrize("lead", [straight, relative, through_a_linked_folder, by_two_links])
def test_shard_that_is_a_link_out_of_the_folder_is_refused(
    lead: Callable[[Path, str, Path], None], sharded: Path, tmp_path: Path, refused: Refused
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (sharded / SHARD).rename(elsewhere / SHARD)
    lead(sharded, SHARD, elsewhere)
    message = refused("inspect", sharded, code=CHECKPOINT)
    assert message == f"{sharded}: shard '{SHARD}' {LEAVES}{FIX}"


def test_link_to_a_folder_whose_name_begins_alike_leaves(single: Path, refused: Refused) -> None:
    beside = single.with_name(single.name + "-private")
    beside.mkdir()
    (single / "model.safetensors").rename(beside / "model.safetensors")
    straight(single, "model.safetensors", beside)
    assert LEAVES in refused("inspect", single, code=CHECKPOINT)


def test_index_that_is_a_link_out_of_the_folder_is_refused(
    sharded: Path, tmp_path: Path, refused: Refused
) -> None:
    (sharded / INDEX_NAME).rename(tmp_path / INDEX_NAME)
    straight(sharded, INDEX_NAME, tmp_path)
    message = refused("inspect", sharded, code=CHECKPOINT)
    assert message == f"{sharded / INDEX_NAME}: {LEAVES}{FIX}"


def test_links_inside_the_folder_are_followed_and_so_is_one_to_the_folder(
    sharded: Path, tmp_path: Path
) -> None:
    expected = open_checkpoint(sharded)
    (sharded / "data").mkdir()
    for name in (SHARD, "config.json"):
        (sharded / name).rename(sharded / "data" / name)
        (sharded / name).symlink_to(Path("data", name))
    (tmp_path / "link").symlink_to(sharded)
    for folder in (sharded, tmp_path / "link"):
        assert list(open_checkpoint(folder).tensors) == list(expected.tensors)


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """A snapshot as the Hub's cache keeps it, with a tokenizer."""
    blobs, snapshot = tmp_path / "repo" / "blobs", tmp_path / "repo" / "snapshots" / "abc"
    tiny_llama(blobs, shards=3)
    (blobs / "tokenizer.json").write_text("{}")
    snapshot.mkdir(parents=True)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(Path("../../blobs", blob.name))
    return snapshot


def test_links_of_the_hub_cache_are_followed(
    cached: Path, recipe: WriteRecipe, command: Command
) -> None:
    path = recipe("models: {m: ./repo/snapshots/abc}\nresult: m\noutput: {path: ./out}\n")
    assert command("apply", path).code == 0
    assert not [file for file in (path.parent / "out").iterdir() if file.is_symlink()]


def test_links_of_a_subfolder_in_the_hub_cache_are_followed(cached: Path) -> None:
    (cached / "sub").mkdir()
    for link in list(cached.iterdir()):
        if link.is_symlink():
            (cached / "sub" / link.name).symlink_to(Path("..", os.readlink(link)))
    assert open_checkpoint(cached / "sub").tensors


def test_link_out_of_the_hub_cache_s_blobs_is_refused(cached: Path, refused: Refused) -> None:
    (cached.parent.parent / "refs").mkdir()
    (cached.parent.parent / "refs" / "main").write_text("{}")
    (cached / "config.json").unlink()
    (cached / "config.json").symlink_to("../../refs/main")
    message = refused("inspect", cached, code=CHECKPOINT)
    assert message == f"{cached / 'config.json'}: {LEAVES}{FIX}"


def test_blob_that_is_a_link_out_of_the_hub_cache_is_refused(
    cached: Path, tmp_path: Path, refused: Refused
) -> None:
    blob = cached.parent.parent / "blobs" / "tokenizer.json"
    blob.rename(tmp_path / "secret")
    blob.symlink_to(tmp_path / "secret")
    message = refused("inspect", cached, code=CHECKPOINT)
    assert message == f"{cached / 'tokenizer.json'}: {LEAVES}{FIX}"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("config.json", ("is not there\n", "cannot be read: ")),
        ("model.safetensors", ("cannot be read: ",)),
        ("tokenizer.json", ("is not there, though a link to it is\n",)),
    ],
)
@pytest.mark.parametrize("kind", ["nothing", "itself"])
def test_link_to_nothing_or_to_itself_is_refused(
    kind: str, name: str, problem: tuple[str, ...], single: Path, refused: Refused
) -> None:
    (single / name).unlink(missing_ok=True)
    (single / name).symlink_to("nothing" if kind == "nothing" else name)
    message = refused("inspect", single, code=CHECKPOINT)
    assert message.startswith(tuple(f"{single / name}: {what}" for what in problem))


@pytest.mark.parametrize("kind", ["nothing", "itself"])
def test_shard_that_is_a_link_to_nothing_or_to_itself_is_missing(
    kind: str, sharded: Path, refused: Refused
) -> None:
    (sharded / SHARD).unlink()
    (sharded / SHARD).symlink_to("nothing" if kind == "nothing" else SHARD)
    message = refused("inspect", sharded, code=CHECKPOINT)
    assert message.startswith(f"{sharded / INDEX_NAME}: 1 of 3 shards are missing: {SHARD}\n")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "x.py"])
def test_pipe_in_place_of_a_file_is_refused_and_not_waited_for(
    name: str, single: Path, refused: Refused
) -> None:
    (single / name).unlink(missing_ok=True)
    os.mkfifo(single / name)
    message = refused("inspect", single, code=CHECKPOINT)
    assert message == f"{single / name}: is not a regular file\n"
