"""Whatever fails while a folder is pushed: the branch stays whole, and the next push completes."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tests.hub.desk import INITIAL, REPO, WRITING, Desk, desk, files_of
from tests.hub.faults import (
    Answer,
    Cut,
    Fail,
    Fault,
    LoseReply,
    Meanwhile,
    Redirect,
    Reset,
    ResetUpload,
    Stall,
)
from tests.hub.quick import quick

__all__ = ["desk", "quick"]

REQUESTS: dict[str, dict[str, Any]] = {
    "look": {"method": "GET", "target": "/api/models/org/out"},
    "create": {"method": "POST", "target": "/api/repos/create"},
    "may write": {"method": "GET", "target": "/auth-check/"},
    "how": {"method": "POST", "target": "/preupload/"},
    "what": {"method": "POST", "target": "/objects/batch"},
    "send": {"method": "PUT", "target": "/upload/"},
    "send a part": {"method": "PUT", "target": "/part/"},
    "complete": {"method": "POST", "target": "/complete_multipart/"},
    "verify": {"method": "POST", "target": "/info/lfs/verify"},
    "card": {"method": "POST", "target": "/validate-yaml"},
    "commit": {"method": "POST", "target": "/commit/"},
    "branch": {"method": "POST", "target": "/branch/"},
}
"""The requests of a push, in the order in which they first come."""

WRITES = [name for name in REQUESTS if name not in ("look", "create", "may write", "branch")]
"""Those that come once a repository is open."""

each_request = pytest.mark.parametrize("name", REQUESTS)

PASSING: dict[str, Fault] = {
    "500": Fail(500),
    "503": Fail(503),
    "429": Fail(429),
    "reset": Reset(None),
    "lost reply": LoseReply(),
    "cut": Cut(5),
}

UNHEARD = ("look", "how", "what", "send", "send a part", "verify", "commit")
"""Requests that are made again until they succeed; nobody hears of one that failed once."""

LASTING: dict[str, Fault] = {
    "500": Fail(500),
    "reset": Reset(None),
    "401": Fail(401),
    "403": Fail(403, message="Storage quota is exceeded"),
}

BUSY: dict[str, Fault] = {"503": Fail(503), "429": Fail(429)}


def target_of(name: str) -> str:
    return f"{REPO}@next" if name == "branch" else REPO


def assert_unchanged(desk: Desk, branch: str = "main") -> None:
    """The repository is not there, or as it was made."""
    if REPO in desk.hub.registry.repos and branch in desk.hub.repo(REPO).branches:
        assert desk.hub.files(REPO, branch).keys() == INITIAL


def assert_completes(desk: Desk, folder: Path, target: str = REPO) -> None:
    """A push without faults sends what is lacking, and makes a commit if there was none yet."""
    desk.hub.faults.clear()
    lacking = [
        data
        for name, data in files_of(folder).items()
        if name.endswith(".safetensors") and not has(desk, data)
    ]
    desk.hub.log.clear()
    desk.pushed(folder, repo=target)
    assert desk.uploaded() == sum(map(len, lacking))
    assert len(desk.titles(*target.split("@"))) == 2


def has(desk: Desk, data: bytes) -> bool:
    """Whether the Hub has a large file in the repository."""
    if REPO not in desk.hub.registry.repos:
        return False
    objects = [desk.hub.registry.objects[oid] for oid in desk.hub.repo(REPO).lfs]
    return any(content.read() == data for content in objects)


@each_request
@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_failure_that_passes_does_no_harm(fault: Fault, name: str, desk: Desk) -> None:
    folder, target = desk.model(), target_of(name)
    rule = desk.hub.faults.add(fault, **REQUESTS[name])
    done = desk.call("push", folder, target)
    assert rule.hits == 1
    if done.code:
        assert name not in UNHEARD or (name, fault) == ("look", PASSING["cut"])
        assert done.code == WRITING
        assert "fix: " in done.err
        assert_unchanged(desk)
    else:
        desk.assert_holds(folder, *target.split("@"))
        assert len(desk.titles(*target.split("@"))) == 2
    assert_completes(desk, folder, target)


@each_request
@pytest.mark.parametrize("fault", LASTING.values(), ids=LASTING)
def test_failure_that_lasts_is_told_and_changes_nothing(
    fault: Fault, name: str, desk: Desk
) -> None:
    folder, target = desk.model(), target_of(name)
    desk.hub.faults.add(fault, times=None, **REQUESTS[name])
    done = desk.call("push", folder, target)
    if done.code == 0:  # what the client can do without
        desk.assert_holds(folder, *target.split("@"))
    else:
        assert (done.code, done.out) == (WRITING, "")
        assert "org/out" in done.err
        assert_unchanged(desk)
    assert_completes(desk, folder, target)


@pytest.mark.parametrize("name", ["look", "send", "commit"])
@pytest.mark.parametrize("fault", BUSY.values(), ids=BUSY)
def test_hub_that_stays_busy_is_told(fault: Fault, name: str, desk: Desk) -> None:
    folder = desk.model()
    desk.hub.faults.add(fault, times=None, **REQUESTS[name])
    assert "fix: " in desk.refused("push", folder, REPO)
    assert_unchanged(desk)
    assert_completes(desk, folder)


@each_request
@pytest.mark.parametrize("body", ["<html>log in to the network</html>", "{}", "[]"])
def test_answer_that_is_no_hubs_is_told(body: str, name: str, desk: Desk) -> None:
    folder, target = desk.model(), target_of(name)
    desk.hub.faults.add(Answer(body.encode()), times=None, **REQUESTS[name])
    done = desk.call("push", folder, target)
    if done.code:
        assert (done.code, done.out) == (WRITING, "")
        assert_unchanged(desk)
    assert_completes(desk, folder, target)


@pytest.mark.parametrize(
    ("name", "status"), [*((name, 307) for name in REQUESTS), ("commit", 302), ("look", 302)]
)
def test_token_does_not_go_along_to_another_host(status: int, name: str, desk: Desk) -> None:
    folder, target = desk.model(), target_of(name)
    elsewhere = Redirect(desk.hub.cdn_url + "/elsewhere", status)
    desk.hub.faults.add(elsewhere, times=None, **REQUESTS[name])
    assert desk.call("push", folder, target).code in (0, WRITING)
    assert not any(exchange.token for exchange in desk.hub.log.select(host="cdn"))
    assert_unchanged(desk)
    assert_completes(desk, folder, target)


@pytest.mark.parametrize("name", WRITES)
def test_token_that_is_revoked_halfway_is_told(name: str, desk: Desk) -> None:
    folder, accounts = desk.model(), desk.hub.registry.accounts
    kept = dict(accounts)
    desk.hub.faults.add(Meanwhile(accounts.clear), **REQUESTS[name])
    message = desk.refused("push", folder, REPO)
    assert "does not accept the token" in message
    assert "hf auth login" in message
    accounts |= kept
    assert_unchanged(desk)
    assert_completes(desk, folder)


@pytest.mark.parametrize("name", ["send", "send a part"])
@pytest.mark.parametrize("after", [0, 1, 65_536])
@pytest.mark.parametrize("times", [1, None])
def test_upload_that_is_reset_on_its_way_is_sent_again(
    times: int | None, after: int, name: str, desk: Desk
) -> None:
    folder = desk.model()
    desk.hub.faults.add(ResetUpload(after), times=times, **REQUESTS[name])
    done = desk.call("push", folder, REPO)
    assert done.code == (WRITING if times is None else 0)
    if times is None:
        assert_unchanged(desk)
    assert_completes(desk, folder)


@pytest.mark.parametrize("name", ["may write", "send", "commit"])
def test_server_that_stops_answering_is_asked_again(
    name: str, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = desk.model()
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.25)
    rule = desk.hub.faults.add(Stall(60), **REQUESTS[name])
    began = time.monotonic()
    desk.pushed(folder)
    assert rule.hits == 1
    assert time.monotonic() - began < 15
    assert len(desk.titles()) == 2


@pytest.mark.parametrize("name", WRITES)
def test_branch_that_moves_meanwhile_is_not_committed_to(name: str, desk: Desk) -> None:
    folder, hub = desk.model(), desk.hub
    hub.add_repo(REPO)
    move = Meanwhile(lambda: hub.commit(REPO, {"other.txt": "mine"}, title="another"))
    hub.faults.add(move, **REQUESTS[name])
    assert "has moved" in desk.refused("push", folder, REPO)
    assert desk.titles() == ["another", "initial commit"]
    hub.log.clear()
    desk.pushed(folder)
    assert hub.files(REPO)["other.txt"] == b"mine"
    assert desk.titles()[1:] == ["another", "initial commit"]


def test_branch_that_moves_after_the_commit_is_no_error(desk: Desk) -> None:
    hub = desk.hub

    def move() -> None:
        hub.commit(REPO, {"config.json": "{}"}, title="another")

    def is_last(_: object) -> bool:
        return len(desk.titles()) == 2

    hub.add_repo(REPO)
    hub.faults.add(Meanwhile(move), method="GET", when=is_last)
    done = desk.call("push", desk.model(), REPO)
    assert done.code == 0, done.err
    assert desk.titles()[0] == "another"
    assert hub.repo(REPO).resolve("main").parents[0] in done.out


def test_reply_to_the_commit_is_lost_and_the_branch_moves_on(desk: Desk) -> None:
    """Whether the commit was made cannot be told by the branch's head alone."""
    hub, folder = desk.hub, desk.model()
    hub.add_repo(REPO)
    move = Meanwhile(lambda: hub.commit(REPO, {"other.txt": "mine"}, title="another"))
    hub.faults.add(move, method="GET", when=lambda _: len(desk.titles()) == 2)
    hub.faults.add(LoseReply(), **REQUESTS["commit"])
    done = desk.call("push", folder, REPO)
    assert done.code == 0, done.err
    desk.assert_holds(folder)
    assert len(desk.titles()) == 3


@pytest.mark.parametrize("fault", [Fail(500), Reset(None), LoseReply()])
def test_failed_commit_that_only_removes_is_not_taken_for_made(fault: Fault, desk: Desk) -> None:
    """All files are there already, but so is a shard of an earlier model."""
    folder = desk.model()
    desk.pushed(folder)
    desk.hub.commit(REPO, {"model-00004-of-00004.safetensors": b"old weights"})
    desk.hub.faults.add(fault, **REQUESTS["commit"])
    done = desk.call("push", folder, REPO)
    assert done.code in (0, WRITING)
    if done.code == 0:
        desk.assert_holds(folder)
    desk.hub.faults.clear()
    desk.pushed(folder)


@pytest.mark.parametrize("fault", [Fail(500), Fail(403, message="Storage is full")])
def test_failed_commit_that_only_removes_is_told(fault: Fault, desk: Desk) -> None:
    folder = desk.model()
    desk.pushed(folder)
    desk.hub.commit(REPO, {"model-00004-of-00004.safetensors": b"old weights"})
    desk.hub.faults.add(fault, times=None, **REQUESTS["commit"])
    desk.refused("push", folder, REPO)


def test_object_that_the_hub_refuses_is_told_in_its_words(desk: Desk) -> None:
    sizes = [len(data) for name, data in files_of(desk.model()).items() if "safetensors" in name]
    error = {"code": 403, "message": "Storage quota is exceeded"}
    refusal = {"objects": [{"oid": "0" * 64, "size": sizes[0], "error": error}]}
    answer = Answer(json.dumps(refusal).encode())
    desk.hub.faults.add(answer, times=None, **REQUESTS["what"])
    assert "quota" in desk.refused("push", desk.model(), REPO)
    assert_unchanged(desk)


@pytest.mark.parametrize("name", ["send", "send a part"])
def test_signed_address_that_has_expired_is_told(name: str, desk: Desk) -> None:
    folder = desk.model()
    desk.hub.faults.add(Meanwhile(desk.hub.registry.expire), times=None, **REQUESTS[name])
    assert "has signed" in desk.refused("push", folder, REPO)
    assert_unchanged(desk)
    assert_completes(desk, folder)


@pytest.mark.parametrize(
    ("lost", "name"),
    [
        *(("objects", name) for name in WRITES),
        *(("repository", name) for name in WRITES if not name.startswith("send")),
    ],
)
def test_hub_that_loses_what_was_sent_shows_no_half(lost: str, name: str, desk: Desk) -> None:
    # With one shard none is on its way while the repository goes.
    folder, hub = desk.model(shards=1 if lost == "repository" else 3), desk.hub
    lose = {
        "repository": lambda: hub.registry.repos.pop(REPO),
        "objects": lambda: hub.repo(REPO).lfs.clear(),
    }
    rule = hub.faults.add(Meanwhile(lose[lost]), **REQUESTS[name])
    done = desk.call("push", folder, REPO)
    assert rule.hits == 1
    if done.code:
        assert done.code == WRITING
        assert_unchanged(desk)
        assert_completes(desk, folder)
    desk.assert_holds(folder)
