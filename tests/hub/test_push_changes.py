"""A folder that changes while it is pushed: nothing of it is committed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hub.desk import INITIAL, REPO, WRITING, Desk, desk, files_of
from tests.hub.faults import Meanwhile
from tests.hub.quick import quick

__all__ = ["desk", "quick"]

SHARDS = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(60_000)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"?" * 1000)


def replace(path: Path) -> None:
    """As editors and downloads do it."""
    other = path.parent.parent / "other"
    other.write_bytes(path.read_bytes())
    flip(other)
    other.replace(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "first shard flipped": lambda folder: flip(folder / SHARDS[0]),
    "last shard flipped": lambda folder: flip(folder / SHARDS[2]),
    "first shard cut": lambda folder: cut(folder / SHARDS[0]),
    "last shard cut": lambda folder: cut(folder / SHARDS[2]),
    "first shard grown": lambda folder: grow(folder / SHARDS[0]),
    "last shard replaced": lambda folder: replace(folder / SHARDS[2]),
    "last shard removed": lambda folder: (folder / SHARDS[2]).unlink(),
    "config changed": lambda folder: (folder / "config.json").write_text("{}"),
    "config removed": lambda folder: (folder / "config.json").unlink(),
    "file added": lambda folder: (folder / "added.json").write_text("{}"),
    "folder moved": lambda folder: folder.rename(folder.parent / "moved"),
}


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("when", ["/part/", "/info/lfs/verify"])
def test_folder_that_changes_while_shards_are_sent_is_an_error(
    when: str, kind: str, desk: Desk
) -> None:
    folder = desk.model()
    desk.hub.faults.add(Meanwhile(lambda: CHANGES[kind](folder)), when)
    message = desk.refused("push", folder, REPO)
    assert "change" in message
    assert desk.hub.files(REPO).keys() == INITIAL
    assert "Traceback" not in message
    desk.pushed(desk.model("mended"))


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("when", ["/validate-yaml", "/preupload/"])
def test_folder_that_changes_just_before_the_commit_is_an_error_or_too_late(
    when: str, kind: str, desk: Desk
) -> None:
    """What is committed are the bytes that were digested, or nothing."""
    folder = desk.model()
    want = files_of(folder)
    desk.hub.faults.add(
        Meanwhile(lambda: CHANGES[kind](folder)),
        when,
        when=lambda _: len(desk.hub.repo(REPO).lfs) == 3,
    )
    done = desk.call("push", folder, REPO)
    there = {name: data for name, data in desk.hub.files(REPO).items() if name not in INITIAL}
    assert there in ({}, want)
    assert done.code == (0 if there else WRITING), done.err
    desk.pushed(desk.model("mended"))
