"""Ranges come straight into the caller's buffers, over connections that are used again."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi, close_session
from huggingface_hub.errors import HfHubHTTPError

from tensorsurgeon.errors import HubError
from tensorsurgeon.hub.connections import Connections
from tensorsurgeon.hub.requests import Address
from tests.hub.bare import WEIGHTS
from tests.hub.faults import Cut, Fail, Fault, LoseReply, Redirect, Stall
from tests.hub.loopback import LoopbackHub
from tests.hub.messages import Response
from tests.hub.ways import proxy, tls_host

SIZE = len(WEIGHTS)


@pytest.fixture
def connections(client: HfApi) -> Iterator[Connections]:
    made = Connections()
    yield made
    made.close()


@pytest.fixture
def signed(weights: str) -> Address:
    return Address(url=weights, is_signed=True)


def read(connections: Connections, address: Address, start: int, count: int) -> bytes:
    """A range, asked for and read in pieces of a span's size."""
    answer = connections.ask(address, start, count, SIZE)
    buffer, done = bytearray(count), 0
    while got := answer.read_into(memoryview(buffer)[done : done + (1 << 19)]):
        done += got
    answer.close()
    return bytes(buffer[:done])


def test_ranges_come_over_one_connection(
    connections: Connections, signed: Address, hub: LoopbackHub
) -> None:
    before = hub.connections["cdn"]
    for start, count in [(0, 1), (7, 2_000_000), (SIZE - 5, 5), (1, SIZE - 1)]:
        assert read(connections, signed, start, count) == WEIGHTS[start : start + count]
    assert hub.connections["cdn"] == before + 1


def test_answer_given_up_takes_its_connection_along(
    connections: Connections, signed: Address
) -> None:
    answer = connections.ask(signed, 0, SIZE, SIZE)
    answer.read_into(memoryview(bytearray(10)))
    answer.close()
    assert read(connections, signed, 100, 1000) == WEIGHTS[100:1100]


def test_connection_that_was_closed_meanwhile_is_made_anew_at_once(
    connections: Connections, signed: Address, hub: LoopbackHub
) -> None:
    read(connections, signed, 0, 1)
    for reset in (False, True):
        hub.faults.add(LoseReply(reset=reset), host="cdn")
        assert read(connections, signed, 5, 50) == WEIGHTS[5:55]


def test_body_that_ends_early_ends_early(
    connections: Connections, signed: Address, hub: LoopbackHub
) -> None:
    hub.faults.add(Cut(1000), host="cdn")
    assert read(connections, signed, 0, SIZE) == WEIGHTS[:1000]


def test_stall_is_a_timeout(
    connections: Connections,
    signed: Address,
    hub: LoopbackHub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    for after in (None, 1000):
        hub.faults.add(Stall(60, after_bytes=after), host="cdn")
        with pytest.raises(httpx2.ReadTimeout):
            read(connections, signed, 0, SIZE)


def test_error_of_the_host_is_the_clients_error(
    connections: Connections, signed: Address, hub: LoopbackHub
) -> None:
    hub.faults.add(Fail(429, retry_after=7), host="cdn")
    with pytest.raises(HfHubHTTPError) as raised:
        read(connections, signed, 0, 10)
    assert raised.value.response.status_code == 429
    assert raised.value.response.headers["Retry-After"] == "7"


def test_redirect_is_followed_by_the_client(
    connections: Connections, signed: Address, hub: LoopbackHub
) -> None:
    hub.faults.add(Redirect(signed.url), host="cdn")
    assert read(connections, signed, 3, 30) == WEIGHTS[3:33]


@dataclass(frozen=True, slots=True)
class Longer(Fault):
    """One byte more is sent than was asked for, under the same Content-Range."""

    def after(self, response: Response) -> Response:
        return replace(response, length=response.length + 1)


def test_more_than_was_asked_for_is_refused(
    connections: Connections, signed: Address, hub: LoopbackHub
) -> None:
    hub.faults.add(Longer(), host="cdn")
    with pytest.raises(HubError, match="sends more than was asked for"):
        read(connections, signed, 0, 10)


def test_token_goes_to_the_hub_alone(
    connections: Connections, signed: Address, hub: LoopbackHub
) -> None:
    hub.commit("org/model", {"small.txt": "text"})
    here = Address(url=hub.url("org/model", "small.txt"))
    answer = connections.ask(here, 1, 2, 4)
    buffer = bytearray(2)
    assert (answer.read_into(memoryview(buffer)), bytes(buffer)) == (2, b"ex")
    read(connections, signed, 0, 1)
    assert hub.log.select(host="hub", target="small")[-1].token == hub.token
    assert not any(exchange.token for exchange in hub.log.select(host="cdn"))


def test_proxy_is_asked_where_there_is_one(
    client: HfApi, signed: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy() as (address, asked):
        monkeypatch.setenv("http_proxy", address)
        monkeypatch.delenv("no_proxy")
        close_session()
        connections = Connections()
        assert read(connections, signed, 3, 2_000_000) == WEIGHTS[3:2_000_003]
        assert asked == [signed.url]


def test_certificates_are_those_of_the_client(
    client: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tls_host(WEIGHTS, tmp_path) as (url, certificate):
        address = Address(url=url, is_signed=True)
        with pytest.raises(httpx2.ConnectError):
            read(Connections(), address, 0, 10)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        connections = Connections()
        for start, count in [(7, 2_000_000), (0, 1)]:
            assert read(connections, address, start, count) == WEIGHTS[start : start + count]
        connections.close()
