"""A Hub of its own for each test, and the real client talking to it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, close_session, constants

from tests.hub.bare import WEIGHTS, Caller
from tests.hub.loopback import LoopbackHub, foreign


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A fresh Hub. This process's environment points to it, and so does `hub.environment()`.

    The client reads most variables when it is imported: what calls it in this process takes the
    fixture `client`.
    """
    for name in filter(foreign, list(os.environ)):
        monkeypatch.delenv(name)
    hub = LoopbackHub(tmp_path)
    for name, value in hub.settings().items():
        monkeypatch.setenv(name, value)
    yield hub
    hub.stop()


@pytest.fixture
def client(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[HfApi]:
    """The real client in this process, as it would be had it been imported under `hub`."""
    template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    patched: dict[str, object] = {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HOME": str(hub.home),
        "HF_HUB_CACHE": str(hub.home / "hub"),
        "HF_TOKEN_PATH": str(hub.home / "token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_OFFLINE": False,
    }
    for name, value in patched.items():
        monkeypatch.setattr(constants, name, value)
    close_session()
    yield HfApi(endpoint=hub.endpoint, token=hub.token)
    close_session()


@pytest.fixture
def cdn(hub: LoopbackHub) -> Iterator[Caller]:
    caller = Caller(hub.cdn_url)
    yield caller
    caller.connection.close()


@pytest.fixture
def api(hub: LoopbackHub) -> Iterator[Caller]:
    caller = Caller(hub.endpoint)
    yield caller
    caller.connection.close()


@pytest.fixture
def weights(hub: LoopbackHub, api: Caller) -> str:
    """The signed address of a large file in `org/model`."""
    hub.add_repo("org/model", {"config.json": "{}", "model.safetensors": WEIGHTS})
    return api("GET", hub.url("org/model", "model.safetensors")).headers["Location"]
