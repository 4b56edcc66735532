"""Caches that are read-only, full or shared, a token that is revoked, and where a token is seen."""

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.cli.processes import namespace
from tests.hub.faults import Meanwhile, Slow
from tests.hub.loopback import CANARY
from tests.hub.test_pull import (
    MODULE,
    ROOT,
    Desk,
    assert_token_is_nowhere,
    desk,
    marks_of,
    want,
    without_manifest,
)

__all__ = ["desk", "want"]


def test_cache_that_is_read_only_is_read(desk: Desk, want: dict[str, bytes]) -> None:
    """As a cache is that an administrator has filled; nothing was kept in it by us."""
    assert desk.run("apply", desk.recipe()).code == 0
    for kept in desk.hub.home.glob("hub/models--*/.tensorsurgeon"):
        shutil.rmtree(kept)
    home = desk.hub.home
    read_only = namespace(f"mount --bind {home} {home}; mount -o remount,ro,bind {home}")
    done = desk.run_under(read_only, "apply", desk.recipe(), "--overwrite")
    assert done.code == 0, done.err
    assert without_manifest(desk.folder / "out") == want
    assert not marks_of(desk)
    done = desk.run_under(read_only, "plan", desk.recipe(), HF_HUB_OFFLINE="1")
    assert done.code == 0, done.err


def test_cache_that_is_read_only_and_lacks_a_shard_is_told(desk: Desk) -> None:
    assert desk.run("plan", desk.recipe()).code == 0
    home = desk.hub.home
    read_only = namespace(f"mount --bind {home} {home}; mount -o remount,ro,bind {home}")
    done = desk.run_under(read_only, "apply", desk.recipe())
    assert done.code == 5, done.err
    assert "cannot be put into the cache: Read-only file system" in done.err
    assert "HF_HOME" in done.err
    done = desk.run_under(read_only, "apply", desk.recipe(), "--stream")
    assert done.code == 5, done.err  # the tokenizer is no tensor: it has to be fetched


def test_two_runs_that_fetch_the_same_at_once_are_both_right(
    desk: Desk, want: dict[str, bytes]
) -> None:
    desk.hub.faults.add(Slow(300_000), host="cdn", target="00002-of", times=None)
    path = desk.recipe()
    command = [*MODULE, "apply", str(path), "-q", "-o"]
    environment = desk.hub.environment(PYTHONPATH=str(ROOT))
    runs = [
        subprocess.Popen(
            [*command, out],
            env=environment,
            cwd=desk.folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        for out in ("first", "second")
    ]
    for run in runs:
        _, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
    assert without_manifest(desk.folder / "first") == want
    assert without_manifest(desk.folder / "second") == want
    assert not list(desk.hub.home.rglob("*.incomplete"))
    assert not list(desk.hub.home.rglob("*.part"))


def test_token_that_is_revoked_halfway_through_a_fetch_is_told_and_the_next_run_goes_on(
    desk: Desk, want: dict[str, bytes]
) -> None:
    hub = desk.hub
    for name in "ab":
        folder = desk.folder.parent / "folders" / name
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        hub.add_repo(f"org/private-{name}", files, private=True)
    path = desk.recipe(a="org/private-a", b="org/private-b")
    assert desk.run("plan", path).code == 0
    accounts = dict(hub.registry.accounts)
    revoke = Meanwhile(lambda: (hub.registry.accounts.clear(), hub.registry.expire()))
    hub.faults.add(revoke, host="cdn", skip=2)
    message = desk.refused("apply", path)
    assert "org/private-" in message
    assert "hf auth login" in message or "does not take the address" in message
    hub.registry.accounts.update(accounts)
    done = desk.run("apply", path)
    assert done.code == 0, done.err
    assert without_manifest(desk.folder / "out") == want
    assert_token_is_nowhere(desk)


def test_disk_that_is_full_while_shards_come_is_told_and_the_next_run_goes_on(
    desk: Desk, want: dict[str, bytes]
) -> None:
    """Another program takes the room that there was when the run began."""
    home, full = desk.hub.home, desk.folder.parent / "full"
    home.mkdir()
    setup = (
        f"mount -t tmpfs -o size=4m none {home}\n"
        f"(while [ ! -e {full} ]; do sleep 0.05; done; "
        f"cat /dev/zero > {home}/other || touch {full}.done) 2> /dev/null &"
    )

    def fill() -> None:
        full.touch()
        deadline = time.monotonic() + 10
        while not Path(f"{full}.done").exists() and time.monotonic() < deadline:
            time.sleep(0.02)

    desk.hub.faults.add(Meanwhile(fill), host="cdn", skip=6)  # after the headers
    done = desk.run_under(namespace(setup), "apply", desk.recipe())
    assert done.code == 5, done.err
    assert "cannot be put into the cache: No space left on device" in done.err
    assert "HF_HOME" in done.err
    assert "Traceback" not in done.err
    assert not (desk.folder / "out").exists()
    assert desk.run("apply", desk.recipe()).code == 0
    assert without_manifest(desk.folder / "out") == want


def test_token_is_in_no_process_and_no_file_while_a_run_lasts(desk: Desk) -> None:
    """Whatever is started shows its arguments to every user of the machine."""
    seen: list[str] = []
    over = threading.Event()
    (desk.folder.parent / "tmp").mkdir()

    def files() -> Iterator[Path]:
        yield from Path("/proc").glob("[0-9]*/cmdline")
        for folder, _, names in os.walk(desk.folder.parent):
            yield from (Path(folder) / name for name in names)

    def look() -> None:
        while not over.is_set():
            for path in files():
                with contextlib.suppress(OSError):  # it has gone
                    if CANARY.encode() in path.read_bytes():
                        seen.append(str(path))

    looking = threading.Thread(target=look)
    desk.hub.faults.add(Slow(200_000), host="cdn", times=None)
    looking.start()
    try:
        for arguments in (("apply",), ("apply", "--stream", "--overwrite")):
            done = desk.run(
                *arguments,
                desk.recipe("{slerp: {models: [a, b], t: 0.4}}"),
                TMPDIR=str(desk.folder.parent / "tmp"),
            )
            assert done.code == 0, done.err
            shutil.rmtree(desk.hub.home)
    finally:
        over.set()
        looking.join()
    assert not seen
    manifest = (desk.folder / "out" / "tensorsurgeon.json").read_text()
    assert CANARY not in manifest
    assert "sig" not in json.dumps(json.loads(manifest)["sources"]).lower()
    assert_token_is_nowhere(desk)
