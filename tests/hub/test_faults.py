"""Every fault does to a bare HTTP client what it says."""

import http.client
import json
import os
import time

import pytest

from tests.hub.bare import WEIGHTS, Caller, commit_body
from tests.hub.content import Content
from tests.hub.faults import (
    ChangeETag,
    Cut,
    Fail,
    Fault,
    FlipBit,
    IgnoreRange,
    LoseReply,
    Meanwhile,
    Redirect,
    Reset,
    ResetUpload,
    Slow,
    Stall,
    WrongContentRange,
)
from tests.hub.loopback import LoopbackHub


@pytest.mark.parametrize("cut", [0, 1, 1000, 2_999_999])
def test_cut_body_ends_at_the_byte(hub: LoopbackHub, cdn: Caller, weights: str, cut: int) -> None:
    rule = hub.faults.add(Cut(cut), "model.safetensors", host="cdn")
    answer = cdn("GET", weights)
    assert (answer.status, answer.whole) == (200, False)
    assert answer.body == WEIGHTS[:cut]
    assert answer.headers["Content-Length"] == str(len(WEIGHTS))
    assert rule.hits == 1
    assert cdn("GET", weights).body == WEIGHTS


@pytest.mark.parametrize("at", [0, 1234, -1])
def test_flipped_bit_changes_one_byte(hub: LoopbackHub, cdn: Caller, weights: str, at: int) -> None:
    hub.faults.add(FlipBit(at))
    body = bytearray(cdn("GET", weights).body)
    body[at] ^= 1
    assert body == WEIGHTS


def test_ignored_range_is_answered_with_everything(
    hub: LoopbackHub, cdn: Caller, weights: str
) -> None:
    hub.faults.add(IgnoreRange(), when=lambda request: "range" in request.headers)
    assert cdn("GET", weights).status == 200
    answer = cdn("GET", weights, Range="bytes=5-9")
    assert (answer.status, answer.body) == (200, WEIGHTS)
    assert cdn("GET", weights, Range="bytes=5-9").status == 206


@pytest.mark.parametrize(
    ("fault", "header"),
    [
        (WrongContentRange(), "bytes 6-10/3000001"),
        (WrongContentRange("bytes 5-9/*"), "bytes 5-9/*"),
        (WrongContentRange(""), None),
    ],
)
def test_content_range_is_wrong_and_the_bytes_are_right(
    hub: LoopbackHub, cdn: Caller, weights: str, fault: Fault, header: str | None
) -> None:
    hub.faults.add(fault)
    answer = cdn("GET", weights, Range="bytes=5-9")
    assert (answer.status, answer.body) == (206, WEIGHTS[5:10])
    assert answer.headers.get("Content-Range") == header


def test_changed_etag_breaks_conditions(hub: LoopbackHub, cdn: Caller, weights: str) -> None:
    etag = cdn("GET", weights, Range="bytes=0-9").headers["ETag"]
    hub.faults.add(ChangeETag("new"), host="cdn", times=None)
    assert cdn("GET", weights, Range="bytes=0-9").headers["ETag"] == '"new"'
    assert cdn("GET", weights, Range="bytes=0-9", If_Match=etag).status == 412
    assert cdn("GET", weights, Range="bytes=0-9", If_Range=etag).status == 200


def test_failure_befalls_so_many_requests_after_so_many(
    hub: LoopbackHub, api: Caller, weights: str
) -> None:
    fault = Fail(429, retry_after=3)
    rule = hub.faults.add(fault, "/resolve/", method="GET", skip=1, times=2)
    later = hub.faults.add(Fail(503), "/resolve/", method="GET")
    url = hub.url("org/model", "config.json")
    answers = [api("GET", url) for _ in range(5)]
    assert [answer.status for answer in answers] == [503, 429, 429, 200, 200]
    assert answers[1].headers["Retry-After"] == "3"
    assert (rule.hits, later.hits) == (2, 1)
    assert hub.log.select(target="config.json")[1].fault == repr(fault)


@pytest.mark.parametrize("status", [401, 403, 408, 416, 500, 502, 503])
def test_failure_for_ever_ends_when_it_is_cleared(
    hub: LoopbackHub, cdn: Caller, weights: str, status: int
) -> None:
    hub.faults.add(Fail(status, message="no"), host="cdn", times=None)
    for _ in range(3):
        answer = cdn("GET", weights)
        assert (answer.status, json.loads(answer.body)) == (status, {"error": "no"})
    hub.faults.clear()
    assert cdn("GET", weights).body == WEIGHTS


def test_stall_before_and_within_the_body(hub: LoopbackHub, cdn: Caller, weights: str) -> None:
    for fault in (Stall(0.3), Stall(0.3, after_bytes=0), Stall(0.3, after_bytes=1000)):
        hub.faults.add(fault)
        began = time.monotonic()
        assert cdn("GET", weights).body == WEIGHTS
        assert 0.3 <= time.monotonic() - began < 3


def test_stalled_body_has_sent_what_came_before(
    hub: LoopbackHub, cdn: Caller, weights: str
) -> None:
    hub.faults.add(Stall(60, after_bytes=1000))
    cdn.connection.request("GET", weights.removeprefix(hub.cdn_url))
    response = cdn.connection.getresponse()
    assert response.read(1000) == WEIGHTS[:1000]
    assert cdn.connection.sock is not None
    cdn.connection.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        response.read(1)
    response.close()
    cdn.connection.close()
    (download,) = hub.log.select(host="cdn")
    assert (download.sent, download.ended) == (1000, True)


def test_slow_body_takes_its_time(hub: LoopbackHub, cdn: Caller, weights: str) -> None:
    hub.faults.add(Slow(100_000))
    began = time.monotonic()
    assert cdn("GET", weights, Range="bytes=0-49999").body == WEIGHTS[:50000]
    assert 0.45 <= time.monotonic() - began < 3


@pytest.mark.parametrize("after_bytes", [None, 0, 100_000])
def test_reset_connection_raises(
    hub: LoopbackHub, cdn: Caller, weights: str, after_bytes: int | None
) -> None:
    hub.faults.add(Reset(after_bytes), host="cdn")
    with pytest.raises(ConnectionResetError):
        cdn("GET", weights)
    cdn.connection.close()
    assert hub.log.sent(host="cdn") == (after_bytes or 0)
    assert cdn("GET", weights).body == WEIGHTS


def test_redirect_leads_elsewhere(hub: LoopbackHub, api: Caller, weights: str) -> None:
    hub.faults.add(Redirect("http://127.0.0.3:1/elsewhere"), "config.json")
    answer = api("GET", hub.url("org/model", "config.json"))
    assert (answer.status, answer.headers["Location"]) == (302, "http://127.0.0.3:1/elsewhere")


def test_branch_moves_just_before_a_request(hub: LoopbackHub, api: Caller, weights: str) -> None:
    hub.faults.add(Meanwhile(lambda: hub.commit("org/model", {"config.json": "[]"})), skip=1)
    url = hub.url("org/model", "config.json")
    assert [api("GET", url).body for _ in range(3)] == [b"{}", b"[]", b"[]"]


def test_refused_commit_changes_nothing(hub: LoopbackHub, api: Caller, weights: str) -> None:
    before = hub.files("org/model")
    url, token = f"{hub.endpoint}/api/models/org/model/commit/main", f"Bearer {hub.token}"
    hub.faults.add(Fail(412, message="A commit has happened since."), "/commit/")
    assert api("POST", url, commit_body(), Authorization=token).status == 412
    assert hub.files("org/model") == before
    assert api("POST", url, commit_body(), Authorization=token).status == 200
    assert hub.files("org/model") == before | {"new.txt": b"new"}


@pytest.mark.parametrize("reset", [False, True])
def test_commit_is_there_though_the_reply_is_lost(
    hub: LoopbackHub, api: Caller, weights: str, reset: bool
) -> None:
    url, token = f"{hub.endpoint}/api/models/org/model/commit/main", f"Bearer {hub.token}"
    parent = hub.repo("org/model").resolve("main").oid
    hub.faults.add(LoseReply(reset=reset), "/commit/")
    expected = ConnectionResetError if reset else http.client.RemoteDisconnected
    with pytest.raises(expected):
        api("POST", url, commit_body(parentCommit=parent), Authorization=token)
    assert hub.files("org/model")["new.txt"] == b"new"
    api.connection.close()
    answer = api("POST", url, commit_body(parentCommit=parent), Authorization=token)
    assert answer.status == 412


def test_reset_upload_leaves_no_object(hub: LoopbackHub, cdn: Caller, weights: str) -> None:
    content = Content.of(os.urandom(8_000_000))
    url = hub.registry.sign(hub.cdn_url, f"/upload/org/model/{content.sha256}")
    hub.faults.add(ResetUpload(2_000_000), method="PUT")
    with pytest.raises(ConnectionError):
        cdn("PUT", url, content.read())
    cdn.connection.close()
    assert content.sha256 not in hub.registry.objects
    assert 2_000_000 <= hub.log.received(host="cdn") < 4_000_000
    assert cdn("PUT", url, content.read()).status == 200
    assert hub.registry.objects[content.sha256].read() == content.read()


def test_token_revoked_halfway_is_refused(hub: LoopbackHub, api: Caller, weights: str) -> None:
    hub.faults.add(Meanwhile(lambda: hub.registry.accounts.pop(hub.token)), skip=1)
    url, token = hub.url("org/model", "config.json"), f"Bearer {hub.token}"
    assert [api("GET", url, Authorization=token).status for _ in range(3)] == [200, 401, 401]
