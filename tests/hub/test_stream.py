"""Tensors read from the Hub while they are merged: the same bytes, and nothing stored."""

import json
import signal

import pytest

from tests.hub.faults import (
    ChangeETag,
    Cut,
    Fail,
    IgnoreRange,
    Meanwhile,
    Reset,
    Stall,
    WrongContentRange,
)
from tests.hub.test_pull import (
    LINEAR,
    Desk,
    assert_token_is_nowhere,
    desk,
    interrupt,
    want,
    without_manifest,
)

__all__ = ["desk", "want"]

SLERP = "{slerp: {models: [a, b], t: 0.4}}"

GROWN = "{depth_up_scale: {model: a, remove: 1}}"

STACKED = "{stack: [{model: {slerp: {models: [a, b], t: 0.4}}}, {model: b, layers: [0, 2]}]}"

TIES = "{ties: {base: a, models: [b], density: 0.4, scope: model, rescale: l1}}"

DELLA = "{della: {base: a, models: [b], density: 0.4, rescale: none}}"

BASED = "{task_arithmetic: {base: a, models: [b], weights: [0.4]}}"

TWICE = "{linear: {models: [a, b, a], weights: [1, 2, 3]}}"


def folders_give(desk: Desk, result: str) -> dict[str, bytes]:
    folders = desk.folder.parent / "folders"
    path = desk.recipe(result, a=str(folders / "a"), b=str(folders / "b"))
    done = desk.run("apply", path, "-o", folders / "merged", "--overwrite")
    assert done.code == 0, done.err
    return without_manifest(folders / "merged")


@pytest.mark.parametrize("result", [LINEAR, SLERP, GROWN, STACKED, TWICE, TIES, DELLA, BASED])
@pytest.mark.parametrize("threads", ["1", "4"])
def test_streamed_merge_has_the_bytes_of_the_merge_of_folders(
    result: str, threads: str, desk: Desk
) -> None:
    expected = folders_give(desk, result)
    done = desk.run("apply", desk.recipe(result), "--stream", "--threads", threads)
    assert done.code == 0, done.err
    assert without_manifest(desk.folder / "out") == expected
    assert not list(desk.hub.home.rglob("*.safetensors"))
    assert sorted(path.name for path in desk.folder.iterdir()) == ["out", "recipe.yaml"]
    assert_token_is_nowhere(desk)


@pytest.mark.parametrize("result", [LINEAR, SLERP, STACKED, TWICE, DELLA, BASED])
def test_no_byte_comes_twice(result: str, desk: Desk) -> None:
    path = desk.recipe(result)
    assert desk.run("apply", path, "--stream").code == 0
    folders = desk.folder.parent / "folders"
    shards = sum(p.stat().st_size for p in folders.rglob("*.safetensors"))
    again = 2 if result == STACKED else 1  # two of b's layers are read for two results
    assert desk.hub.log.sent(host="cdn") < again * shards + 6 * 8192


def test_shards_that_are_in_the_cache_are_not_streamed(desk: Desk, want: dict[str, bytes]) -> None:
    assert desk.run("apply", desk.recipe("a")).code == 0
    desk.hub.log.clear()
    assert desk.run("apply", desk.recipe(), "--stream", "--overwrite").code == 0
    assert without_manifest(desk.folder / "out") == want
    assert not desk.hub.log.select(host="cdn", target="/org/a/")
    assert desk.hub.log.select(host="cdn", target="/org/b/")


def test_fetched_and_streamed_merge_have_the_same_manifest_and_go_on_from_each_other(
    desk: Desk, want: dict[str, bytes]
) -> None:
    assert desk.run("apply", desk.recipe(), "--stream").code == 0
    assert desk.run("apply", desk.recipe(), "-o", "fetched").code == 0
    streamed, fetched = (
        json.loads((desk.folder / name / "tensorsurgeon.json").read_text())
        for name in ("out", "fetched")
    )
    assert streamed["created"]["binding"] == fetched["created"]["binding"]
    del streamed["created"], fetched["created"]
    assert streamed == fetched
    assert without_manifest(desk.folder / "out") == want


PASSING = {
    "cut at once": Cut(0),
    "cut inside": Cut(10_000),
    "reset": Reset(5_000),
    "429": Fail(429, retry_after=1),
    "503": Fail(503),
    "an address too old": Fail(403),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_failure_that_passes_costs_no_byte(
    fault: object, desk: Desk, want: dict[str, bytes]
) -> None:
    for skip in (6, 9, 14):  # after the headers
        desk.hub.faults.add(fault, host="cdn", skip=skip, times=1)
    done = desk.run("apply", desk.recipe(), "--stream")
    assert done.code == 0, done.err
    assert without_manifest(desk.folder / "out") == want


LASTING = {
    "500": (Fail(500), "answers 500"),
    "416": (Fail(416), "416"),
    "the whole": (IgnoreRange(), "answers 200 where a part was asked for"),
    "another part": (WrongContentRange("bytes 1-2/3"), "sends another part than was asked for"),
    "another content": (ChangeETag('"other"'), "has changed while it was read"),
    "cut": (Cut(0), "failed"),
}


@pytest.mark.parametrize(("fault", "said"), LASTING.values(), ids=LASTING)
def test_failure_that_lasts_is_told_and_the_next_run_completes(
    fault: object, said: str, desk: Desk, want: dict[str, bytes]
) -> None:
    desk.hub.faults.add(fault, host="cdn", skip=12, times=None)
    message = desk.refused("apply", desk.recipe(), "--stream", "--threads", "1")
    assert said in message
    desk.hub.faults.clear()
    done = desk.run("apply", desk.recipe(), "--stream")
    assert done.code == 0, done.err
    assert without_manifest(desk.folder / "out") == want


def test_addresses_that_become_too_old_are_asked_for_again(
    desk: Desk, want: dict[str, bytes]
) -> None:
    for skip in (8, 20):
        desk.hub.faults.add(Meanwhile(desk.hub.registry.expire), host="cdn", skip=skip)
    done = desk.run("apply", desk.recipe(), "--stream")
    assert done.code == 0, done.err
    assert without_manifest(desk.folder / "out") == want
    assert [x for x in desk.hub.log.select(host="cdn") if x.status == 403]


def test_token_that_is_revoked_halfway_is_told(desk: Desk) -> None:
    hub = desk.hub
    folder = desk.folder.parent / "folders" / "a"
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    hub.add_repo("org/private", files, private=True)
    revoke = Meanwhile(lambda: (hub.registry.accounts.clear(), hub.registry.expire()))
    hub.faults.add(revoke, host="cdn", skip=8)
    path = desk.recipe("a", a="org/private")
    message = desk.refused("apply", path, "--stream", "--threads", "1")
    assert "hf auth login" in message


def test_connection_that_stalls_is_given_up_and_made_again(
    desk: Desk, want: dict[str, bytes]
) -> None:
    desk.hub.faults.add(Stall(60, after_bytes=1000), host="cdn", skip=7, times=1)
    done = desk.run("apply", desk.recipe(), "--stream")
    assert done.code == 0, done.err
    assert without_manifest(desk.folder / "out") == want


def test_streaming_needs_hardly_any_room_in_the_cache(desk: Desk) -> None:
    assert desk.run("apply", desk.recipe(), "--stream").code == 0
    stored = sum(p.stat().st_size for p in desk.hub.home.rglob("*") if p.is_file())
    shards = (desk.folder.parent / "folders").rglob("*.safetensors")
    assert stored < sum(p.stat().st_size for p in shards) / 20


def test_streaming_is_chosen_where_the_cache_has_no_room(
    desk: Desk, want: dict[str, bytes]
) -> None:
    home = desk.hub.home
    home.mkdir(exist_ok=True)
    mount = f'mount -t tmpfs -o size=300k none {home} && exec "$@"'
    wrapper = ("unshare", "--map-root-user", "--mount", "sh", "-ec", mount, "sh")
    done = desk.run_under(wrapper, "apply", desk.recipe())
    assert done.code == 0, done.err
    assert "the cache has no room for the shards: they are streamed" in done.err
    assert without_manifest(desk.folder / "out") == want


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_stream_that_stalls_at_once(
    number: signal.Signals, desk: Desk, want: dict[str, bytes]
) -> None:
    desk.hub.faults.add(Stall(60, after_bytes=10), host="cdn", skip=20, times=None)
    words = "apply", str(desk.recipe()), "--stream"
    code, err, seconds = interrupt(desk, words, number, requests=22)
    assert code == (130 if number == signal.SIGINT else 143), err
    assert seconds < 5  # a stall is waited for twice as long
    assert "Traceback" not in err
    desk.hub.faults.clear()
    assert desk.run("apply", desk.recipe(), "--stream").code == 0
    assert without_manifest(desk.folder / "out") == want
