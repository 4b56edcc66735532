"""No way to the Hub: the cache and what is kept are enough, or what is lacking is told."""

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cli.checkpoints import llama_config, llama_tensors, write_checkpoint
from tests.hub.faults import Meanwhile
from tests.hub.test_pull import Desk, desk, marks_of, want, without_manifest

__all__ = ["desk", "want"]

NOWHERE = {"HF_ENDPOINT": "http://127.0.0.1:9"}
OFFLINE = {"HF_HUB_OFFLINE": "1"}

LOST = {"offline": OFFLINE, "unreachable": NOWHERE}

SECONDS_ALONE = 2.0
"""What a command takes that does nothing, on a busy machine."""


@pytest.fixture(params=LOST.values(), ids=LOST)
def lost(request: pytest.FixtureRequest) -> dict[str, str]:
    """An environment without a way to the Hub."""
    return request.param


def snapshot(desk: Desk, name: str) -> Path:
    (found,) = desk.hub.home.glob(f"hub/models--org--{name}/snapshots/*")
    return found


def kept(desk: Desk, kind: str) -> list[Path]:
    return sorted(desk.hub.home.glob(f"hub/models--*/.tensorsurgeon/{kind}/*"))


def test_file_that_is_not_in_the_cache_is_told_and_not_left_out(
    lost: dict[str, str], desk: Desk
) -> None:
    assert desk.run("plan", desk.recipe()).code == 0
    assert desk.run("apply", desk.recipe("a")).code == 0
    (snapshot(desk, "a") / "tokenizer.json").unlink()
    for blob in desk.hub.home.glob("hub/models--org--a/blobs/*"):
        if b'{"of": "a"}' in blob.read_bytes():
            blob.unlink()
    done = desk.run("apply", desk.recipe("a"), "-o", "again", **lost)
    assert done.code == 5, done.err
    assert "org/a@main/tokenizer.json: is not in the cache, and" in done.err
    assert not (desk.folder / "again").exists()


@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_plan_needs_no_shard_and_apply_names_those_that_it_lacks(
    stream: tuple[str, ...], lost: dict[str, str], desk: Desk
) -> None:
    online = desk.run("plan", desk.recipe(), "--json")
    assert online.code == 0, online.err
    desk.hub.log.clear()
    done = desk.run("plan", desk.recipe(), "--json", **lost)
    assert done.code == 0, done.err
    assert not desk.hub.log.select()
    planned, before = json.loads(done.out), json.loads(online.out)
    for each in (planned, before):
        del each["notes"], each["cache_free"], each["disk_free"]
    assert planned == before
    assert "lacks " in desk.run("plan", desk.recipe(), **lost).out
    message = desk.refused("apply", desk.recipe(), *stream, **lost)
    assert "org/b@main: 3 files are not in the cache, and" in message
    assert "model-00001-of-00003.safetensors, model-00002" in message


def test_second_plan_asks_for_no_header(desk: Desk) -> None:
    first = desk.run("plan", desk.recipe(), "--json")
    desk.hub.log.clear()
    second = desk.run("plan", desk.recipe(), "--json")
    assert json.loads(first.out)["tensors"] == json.loads(second.out)["tensors"]
    assert not desk.hub.log.select(host="cdn")
    assert len(desk.hub.log.select()) == 2  # what the two branches are now


def test_cache_filled_by_another_program_is_used_and_it_is_noted(
    lost: dict[str, str], desk: Desk, want: dict[str, bytes]
) -> None:
    assert desk.run("apply", desk.recipe()).code == 0
    for path in kept(desk, "*"):
        path.unlink()
    done = desk.run("apply", desk.recipe(), "-o", "again", **lost)
    assert done.code == 0, done.err
    assert "note: 'a': org/a@main: which files it has is not known" in done.err
    assert without_manifest(desk.folder / "again") == want


def test_hub_lost_right_after_the_config_is_told(lost: dict[str, str], desk: Desk) -> None:
    assert desk.run("plan", desk.recipe("a")).code == 0
    for path in kept(desk, "*"):
        path.unlink()
    for path in snapshot(desk, "a").iterdir():
        if path.name != "config.json":
            path.unlink()
    message = desk.refused("plan", desk.recipe("a"), **lost)
    assert "org/a@main/*.safetensors: is not in the cache, and" in message
    assert "weights" not in message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 40,
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"files": {"../x": {"bytes": 1, "sha256": null, "git": null}}}',
        b'{"files": {"config.json": {"bytes": -1, "sha256": null, "git": null}}}',
        b'{"files": {"config.json": {"bytes": 1, "sha256": "../../x", "git": null}}}',
        b'{"files": {"config.json": {"bytes": 1, "sha256": 7, "git": null}}}',
        b'{"files": {"config.json": 5}}',
        b'{"files": 5}',
    ],
)
def test_nonsense_that_is_kept_is_as_nothing(
    data: bytes, desk: Desk, want: dict[str, bytes]
) -> None:
    assert desk.run("plan", desk.recipe()).code == 0
    for path in kept(desk, "*"):
        path.write_bytes(data)
    message = desk.refused("plan", desk.recipe(), **OFFLINE)
    assert "not in the cache" in message or "shards are missing" in message
    done = desk.run("apply", desk.recipe())
    assert done.code == 0, done.err
    assert without_manifest(desk.folder / "out") == want
    desk.hub.log.clear()
    assert desk.run("plan", desk.recipe(), **OFFLINE).code == 0


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to nowhere"])
def test_what_is_no_file_is_not_read(kind: str, desk: Desk) -> None:
    assert desk.run("plan", desk.recipe()).code == 0
    for path in kept(desk, "*"):
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("nowhere")
    assert desk.run("plan", desk.recipe()).code == 0


def test_header_that_breaks_the_format_is_as_nothing(desk: Desk) -> None:
    assert desk.run("plan", desk.recipe()).code == 0
    data = b"\x10" + b"\0" * 7 + b'{"a":1          '
    for path in kept(desk, "headers"):
        path.write_bytes(hashlib.sha256(data).digest() + data)
    message = desk.refused("plan", desk.recipe(), **OFFLINE)
    assert "model-00001-of-00003.safetensors: is not in the cache" in message
    assert desk.run("plan", desk.recipe()).code == 0


def test_header_that_is_not_the_shards_is_found_when_the_shard_comes(
    desk: Desk, want: dict[str, bytes]
) -> None:
    """Two tensors of a size have changed places in it, which no rule of the format forbids."""
    assert desk.run("plan", desk.recipe()).code == 0
    names = (b"layers.0.self_attn.q_proj", b"layers.0.self_attn.o_proj")
    forged = 0
    for path in kept(desk, "headers"):
        data = path.read_bytes()[32:]
        if all(name in data for name in names):
            data = data.replace(names[0], b"?").replace(names[1], names[0]).replace(b"?", names[1])
            path.write_bytes(hashlib.sha256(data).digest() + data)
            forged += 1
            break  # one is found in a run
    assert forged
    message = desk.refused("apply", desk.recipe())
    assert "has another header than the one that was planned with" in message
    assert desk.run("apply", desk.recipe()).code == 0
    assert without_manifest(desk.folder / "out") == want


def test_blob_of_an_older_commit_is_not_to_fetch(desk: Desk, want: dict[str, bytes]) -> None:
    assert desk.run("apply", desk.recipe()).code == 0
    desk.hub.commit("org/a", {"notes.txt": "nothing else is new"})
    assert json.loads(desk.run("plan", desk.recipe(), "--json").out)["fetched"] == {}
    desk.hub.log.clear()
    done = desk.run("apply", desk.recipe(), "--overwrite")
    assert done.code == 0, done.err
    assert "fetching" not in done.err
    assert not desk.hub.log.select(host="cdn")
    assert without_manifest(desk.folder / "out") == want
    assert len(marks_of(desk)) == 6


def test_config_that_is_too_large_is_not_fetched(desk: Desk) -> None:
    desk.hub.commit("org/a", {"config.json": b"{" + b" " * 5_000_000 + b"}"})
    assert "org/a@main/config.json: is larger than" in desk.refused("plan", desk.recipe())
    assert not desk.hub.log.select(target="/org/a/resolve/.*/config.json")


def test_one_commit_under_two_names_is_told_with_both(desk: Desk) -> None:
    desk.hub.tag("org/a", "v1", "main")
    path = desk.recipe(a="org/a", b="org/a@v1")
    assert desk.run("apply", path).code == 0
    manifest = json.loads((desk.folder / "out" / "tensorsurgeon.json").read_text())
    assert {source["revision"] for source in manifest["sources"].values()} == {"main, v1"}


def test_branch_that_moves_meanwhile_gives_no_mixture(desk: Desk) -> None:
    """It would move before the second spelling is asked for."""
    moved = llama_tensors(3, hidden=64, vocab=512, seed=9)
    other = write_checkpoint(desk.folder / "moved", moved, llama_config(3, hidden=64, vocab=512))
    new = {"model.safetensors": (other / "model.safetensors").read_bytes()}
    action = Meanwhile(lambda: desk.hub.commit("org/a", new))
    desk.hub.faults.add(action, target="/api/models/org/a", skip=1)
    path = desk.folder / "recipe.yaml"
    models = "{a: org/a, b: hf://org/a, c: org/a@main}"
    path.write_text(
        f"models: {models}\nresult: {{linear: {{models: [a, b, c]}}}}\noutput: {{path: ./out}}\n"
    )
    done = desk.run("plan", path, "--json")
    assert done.code == 0, done.err
    assert len({repo["commit"] for repo in json.loads(done.out)["repos"].values()}) == 1
    assert len(desk.hub.log.select(target="/api/models/org/a/")) == 1


def test_sources_that_fail_are_told_in_order_with_their_notes(desk: Desk) -> None:
    message = desk.refused("plan", desk.recipe(a="org/no", b="org/neither"))
    first, second = message.index("org/no@main:"), message.index("org/neither@main:")
    assert first < second
    for name in ("org/no", "org/neither"):
        assert f"there is no folder {desk.folder / name} either" in message


@pytest.fixture
def silent() -> Iterator[str]:
    """An address at which no connection is ever made: its queue is full."""
    with ExitStack() as opened, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            caller = opened.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_hub_that_refuses_is_given_up_at_once(desk: Desk) -> None:
    began = time.monotonic()
    assert "cannot be reached" in desk.refused("plan", desk.recipe(), **NOWHERE)
    assert time.monotonic() - began < 3 + SECONDS_ALONE


def test_hub_that_does_not_answer_is_given_up_after_seconds(desk: Desk, silent: str) -> None:
    began = time.monotonic()
    message = desk.refused("plan", desk.recipe(), HF_ENDPOINT=silent)
    assert message.count("cannot be reached") == 2
    assert time.monotonic() - began < 6 + SECONDS_ALONE
