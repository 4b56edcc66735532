"""What makes the tests of pushing quick."""

from pathlib import Path

import pytest
from huggingface_hub.utils import http_backoff

from tensorsurgeon.hub import requests
from tests.hub.desk import Desk


@pytest.fixture(autouse=True)
def quick(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No long pauses before another try, and no certificates, which take 25 ms to read."""
    monkeypatch.setattr(requests, "PAUSE", 0.001)
    monkeypatch.setitem(http_backoff.__kwdefaults__, "base_wait_time", 0.001)
    monkeypatch.setitem(http_backoff.__kwdefaults__, "max_wait_time", 0.002)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
