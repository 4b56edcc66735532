"""The hosts of the loopback Hub answer a bare HTTP client as the standards say."""

import hashlib
import http.client
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.hub.bare import WEIGHTS, Caller, commit_body
from tests.hub.content import Content
from tests.hub.faults import Meanwhile
from tests.hub.line import Line
from tests.hub.loopback import CANARY, LoopbackHub


def test_redirect_names_commit_size_and_digest(hub: LoopbackHub, api: Caller, weights: str) -> None:
    answer = api("HEAD", hub.url("org/model", "model.safetensors"))
    assert answer.status == 302
    assert answer.headers["X-Repo-Commit"] == hub.repo("org/model").resolve("main").oid
    assert answer.headers["X-Linked-Size"] == str(len(WEIGHTS))
    assert answer.headers["X-Linked-Etag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert answer.headers["Location"].startswith(hub.cdn_url)


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(
    ("asked", "span"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=10-99", slice(10, 100)),
        ("bytes=2999990-9999999", slice(2999990, 3000000)),
        ("bytes=5-", slice(5, None)),
        ("bytes=-7", slice(-7, None)),
    ],
)
def test_range_is_answered_with_its_bytes(
    hub: LoopbackHub, cdn: Caller, tmp_path: Path, on_disk: bool, asked: str, span: slice
) -> None:
    (tmp_path / "weights").write_bytes(WEIGHTS)
    content = Content.of(tmp_path / "weights" if on_disk else WEIGHTS)
    repo = hub.add_repo("org/model", {"model.safetensors": content})
    url = hub.registry.sign(hub.cdn_url, f"/{repo.id}/{content.sha256}")
    answer = cdn("GET", url, Range=asked)
    assert (answer.status, answer.body) == (206, WEIGHTS[span])
    start, stop, _ = span.indices(len(WEIGHTS))
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(WEIGHTS)}"


def test_range_beyond_the_end_is_refused(cdn: Caller, weights: str) -> None:
    answer = cdn("GET", weights, Range="bytes=3000000-")
    assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */3000000")
    assert cdn("GET", weights, Range="bytes=0-1,4-5").status == 200


def test_conditions_are_honoured(cdn: Caller, weights: str) -> None:
    etag = cdn("HEAD", weights).headers["ETag"]
    span = "bytes=0-9"
    assert cdn("GET", weights, Range=span, If_Range=etag).status == 206
    assert cdn("GET", weights, Range=span, If_Range='"other"').status == 200
    assert cdn("GET", weights, Range=span, If_Match=etag).status == 206
    assert cdn("GET", weights, Range=span, If_Match='"other"').status == 412
    assert cdn("GET", weights, If_None_Match=etag).status == 304


def test_cdn_wants_its_signature_and_no_token(hub: LoopbackHub, cdn: Caller, weights: str) -> None:
    assert cdn("GET", weights.replace("Signature=", "Signature=0")).status == 403
    assert cdn("GET", weights, Authorization=f"Bearer {hub.token}").status == 400
    assert [request.token for request in hub.log.select(host="cdn")] == [None, hub.token]


def test_expired_address_is_refused_and_a_new_one_is_not(
    hub: LoopbackHub, api: Caller, cdn: Caller, weights: str
) -> None:
    hub.registry.expire()
    assert cdn("GET", weights).status == 403
    again = api("GET", hub.url("org/model", "model.safetensors")).headers["Location"]
    assert cdn("GET", again).body == WEIGHTS


def test_upload_of_other_bytes_is_refused(hub: LoopbackHub, cdn: Caller, weights: str) -> None:
    url = hub.registry.sign(hub.cdn_url, f"/upload/org/model/{'0' * 64}")
    assert cdn("PUT", url, b"other").status == 400
    assert "0" * 64 not in hub.repo("org/model").lfs


def test_many_connections_read_at_once(hub: LoopbackHub, weights: str) -> None:
    def read(start: int) -> bytes:
        caller = Caller(hub.cdn_url)
        body = caller("GET", weights, Range=f"bytes={start}-{start + 99_999}").body
        caller.connection.close()
        return body

    with ThreadPoolExecutor(16) as pool:
        assert b"".join(pool.map(read, range(0, len(WEIGHTS), 100_000))) == WEIGHTS
    assert hub.log.sent(host="cdn") == len(WEIGHTS)


def test_broken_handler_is_no_silent_disconnection(tmp_path: Path) -> None:
    hub = LoopbackHub(tmp_path)
    hub.faults.add(Meanwhile(lambda: 1 // 0))
    caller = Caller(hub.endpoint)
    with pytest.raises(http.client.RemoteDisconnected):
        caller("GET", f"{hub.endpoint}/api/whoami-v2")
    with pytest.raises(ZeroDivisionError):
        hub.stop()


def test_connection_is_kept_open(hub: LoopbackHub, cdn: Caller, api: Caller, weights: str) -> None:
    assert cdn("GET", weights).whole
    first = cdn.connection.sock
    for _ in range(3):
        assert cdn("GET", weights, Range="bytes=0-9").status == 206
    assert cdn.connection.sock is first


def test_bodies_in_chunks_are_read(hub: LoopbackHub, api: Caller, weights: str) -> None:
    pieces = (commit_body()[i : i + 7] for i in range(0, len(commit_body()), 7))
    path = "/api/models/org/model/commit/main"
    api.connection.request(
        "POST", path, pieces, {"Authorization": f"Bearer {hub.token}"}, encode_chunked=True
    )
    assert api.connection.getresponse().status == 200
    assert hub.files("org/model")["new.txt"] == b"new"
    assert hub.log.received(target="/commit/") == len(commit_body())


def test_client_that_dies_while_it_sends_leaves_nothing(
    hub: LoopbackHub, api: Caller, cdn: Caller, weights: str
) -> None:
    before = hub.files("org/model")
    authorized = (
        f"POST /api/models/org/model/commit/main HTTP/1.1\r\nAuthorization: Bearer {CANARY}"
    )
    put = hub.registry.sign("", f"/upload/org/model/{'0' * 64}")
    for caller, begun in [
        (api, f"{authorized}\r\nContent-Length: 1000\r\n\r\n{{"),
        (api, f"{authorized}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n"),
        (cdn, f"PUT {put} HTTP/1.1\r\nContent-Length: 1000\r\n\r\nhalf"),
    ]:
        caller.connection.connect()
        caller.connection.sock.sendall(begun.encode())
        caller.connection.close()
    while len(hub.log.select(target="commit|upload")) < 3:
        time.sleep(0.01)
    assert {request.status for request in hub.log.select(target="commit|upload")} == {None}
    assert hub.files("org/model") == before


def test_paths_that_leave_the_repo_are_not_found(hub: LoopbackHub, api: Caller) -> None:
    hub.add_repo("org/model", {"config.json": "{}"})
    for path in ("../config.json", "%2e%2e/config.json", "a/../config.json"):
        assert api("GET", hub.url("org/model", path)).status == 404


def test_ranges_of_a_file_on_disk_are_fast(hub: LoopbackHub, tmp_path: Path) -> None:
    """A second process reads 256 MB; a tenth of what an idle machine does is asked for."""
    size = 1 << 28
    with (tmp_path / "weights").open("wb") as file:
        file.truncate(size)
    content = Content.of(tmp_path / "weights", sha256="0" * 64)
    hub.add_repo("org/model", {"model.safetensors": content})
    url = urlsplit(hub.registry.sign(hub.cdn_url, f"/org/model/{'0' * 64}"))
    script = """
import http.client, sys, time
host, port, path, size = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
connection = http.client.HTTPConnection(host, port)
buffer = memoryview(bytearray(1 << 20))
began = time.perf_counter()
for start in range(0, size, 1 << 25):
    connection.request("GET", path, headers={"Range": f"bytes={start}-{start + (1 << 25) - 1}"})
    response = connection.getresponse()
    while response.readinto(buffer):
        pass
print(size / (time.perf_counter() - began))
"""
    arguments = [str(url.hostname), str(url.port), f"{url.path}?{url.query}", str(size)]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) > 100e6
    assert hub.log.sent(host="cdn") == size


def test_connections_share_a_line(hub: LoopbackHub, weights: str) -> None:
    hub.connect_by(Line(rate=10e6))
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: Caller(hub.cdn_url)("GET", weights), range(2)))
    assert [answer.body for answer in answers] == [WEIGHTS, WEIGHTS]
    assert time.monotonic() - began > 0.9 * 2 * len(WEIGHTS) / 10e6


def test_every_answer_over_a_line_takes_a_while_to_begin(
    hub: LoopbackHub, cdn: Caller, weights: str
) -> None:
    hub.connect_by(Line(latency=0.05))
    began = time.monotonic()
    for _ in range(4):
        assert cdn("GET", weights, Range="bytes=0-0").body == WEIGHTS[:1]
    assert time.monotonic() - began > 0.9 * 4 * 0.05
