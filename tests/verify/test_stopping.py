"""Files that change while they are read, and Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tensorsurgeon.checkpoint import header_bytes
from tensorsurgeon.checkpoint.header import read_header
from tensorsurgeon.verify import verify
from tests.cli.checkpoints import sparse_llama
from tests.verify.checkpoints import change_manifest, digest, with_manifest
from tests.verify.conftest import told

SHARD = "model.safetensors"


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A model of holes that takes seconds to read; the manifest has no right digests."""
    folder = sparse_llama(tmp_path / "a", 1000)
    path = folder / SHARD
    path.unlink()
    with_manifest(folder)
    sparse_llama(folder, 2 * 10**9)
    change_manifest(
        folder,
        shards={
            SHARD: {
                "bytes": path.stat().st_size,
                "header_bytes": len(header_bytes(path)),
                "header": digest(header_bytes(path)),
            }
        },
        tensors={
            name: {
                "dtype": "BF16",
                "shape": list(tensor.spec.shape),
                "shard": SHARD,
                "offset": tensor.offset,
                "sha256": "0" * 64,
                "origin": {"zeros": True},
            }
            for name, tensor in read_header(path).items()
        },
    )
    return folder


def shrink(path: Path) -> None:
    os.truncate(path, 1000)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"a")


def replace(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


def vanish(path: Path) -> None:
    path.unlink()


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("change", [shrink, grow])
def test_file_that_changes_while_it_is_read_is_a_problem(
    change: Callable[[Path], None], big: Path
) -> None:
    def progress(done: int, _total: int) -> None:
        if done:
            change(big / SHARD)

    assert told(verify(big, threads=2, progress=progress)) == (
        f"{SHARD}: has changed while it was verified"
    )


@pytest.mark.timeout(60)
@pytest.mark.parametrize("change", [replace, vanish, to_pipe])
def test_file_that_is_another_one_when_it_is_read_is_a_problem(
    change: Callable[[Path], None], big: Path
) -> None:
    os.truncate(big / SHARD, 4 * 10**8)
    names = (SHARD, "config.json")  # the larger one comes first
    files = {n: {"bytes": (big / n).stat().st_size, "sha256": "0" * 64} for n in names}
    change_manifest(big, files=files, shards={}, tensors={})
    changed = threading.Event()

    def progress(_done: int, _total: int) -> None:
        if not changed.is_set():
            changed.set()
            change(big / "config.json")

    found = told(verify(big, threads=1, progress=progress))
    assert "config.json: has changed while it was verified" in found


def test_interruption_leaves_no_thread(big: Path) -> None:
    def progress(done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    before, began = set(threading.enumerate()), time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        verify(big, threads=4, progress=progress)
    assert time.monotonic() - began < 1
    assert set(threading.enumerate()) <= before


def test_control_c_ends_it_within_a_second(big: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tensorsurgeon.verify import verify\n"
        "verify(Path(sys.argv[1]), threads=2, progress=lambda d, t: print(d, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, big],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        _, err = process.communicate(timeout=30)
        seconds = time.monotonic() - sent
    assert process.returncode != 0
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert seconds < 1
