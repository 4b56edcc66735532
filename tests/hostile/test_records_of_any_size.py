"""Manifests and journals of 100,000 tensors are read; one made to fill the memory is refused.

Each in a process of its own, whose peak is its own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tensorsurgeon.checkpoint import MANIFEST_NAME, Manifest, encode_manifest
from tensorsurgeon.writing.journal import Journal, Record
from tests.conftest import ROOT
from tests.power.replay import Unflushed

TENSORS = 100_000
DIGEST = "0" * 64

READ = """
import json, sys
from pathlib import Path
from tensorsurgeon.checkpoint import read_manifest
from tensorsurgeon.errors import ManifestError
from tensorsurgeon.writing.journal import read_journal
from tests.hostile.reading import resident

path = Path(sys.argv[1])
before = resident("VmRSS")
try:
    if path.name == "journal":
        outcome = f"{len(read_journal(path).digests)} tensors"
    else:
        outcome = f"{len(read_manifest(path).tensors)} tensors"
except ManifestError as error:
    outcome = str(error)
print(json.dumps([outcome, resident("VmHWM") - before]))
"""
"""Prints what came of a file and the memory it took, in bytes."""


def read(path: Path) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", READ, path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    outcome, peak = json.loads(done.stdout)
    return outcome, peak


def names() -> Iterator[str]:
    for i in range(TENSORS):
        yield f"model.layers.{i // 512}.block_sparse_moe.experts.{i}.w1.weight"


def test_honest_manifest_of_100_000_tensors_is_read(tmp_path: Path) -> None:
    manifest = Manifest(
        tensorsurgeon="0.1.0",
        recipe={"sha256": DIGEST, "text": "result: a\n"},
        seed=0,
        sources={},
        layer_map=(),
        files={},
        shards={"model.safetensors": {"bytes": 1, "header_bytes": 8, "header": DIGEST}},
        tensors={
            name: {
                "dtype": "BF16",
                "shape": [2, 1, 1, 1],
                "shard": "model.safetensors",
                "offset": 4 * i,
                "sha256": f"{i:064x}",
                "origin": {
                    "operator": "linear",
                    "weights": [0.5, 0.5],
                    "inputs": [{"source": source, "tensor": name} for source in "ab"],
                },
            }
            for i, name in enumerate(names())
        },
        created={"at": "", "binding": "", "run": ""},
    )
    path = tmp_path / MANIFEST_NAME
    path.write_bytes(encode_manifest(manifest))
    outcome, peak = read(path)
    assert outcome == f"{TENSORS} tensors"
    assert peak < 500_000_000


def test_journal_of_100_000_tensors_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    begun = Record(binding=DIGEST, run="0" * 32)
    journal = Journal(Unflushed(), path, begun, flush_tensors=lambda: None)
    for i, name in enumerate(names()):
        journal.add(name, f"{i:064x}")
    journal.flush()
    journal.close()
    outcome, peak = read(path)
    assert outcome == f"{TENSORS} tensors"
    assert peak < 200_000_000


@pytest.mark.parametrize("piece", [b"[],", b"{},", b'{"":0},'])
def test_manifest_made_to_fill_the_memory_is_refused(piece: bytes, tmp_path: Path) -> None:
    path = tmp_path / MANIFEST_NAME
    path.write_bytes(b'{"format":[' + piece * (30_000_000 // len(piece)) + b"0]}")
    outcome, peak = read(path)
    assert outcome.startswith(f"{path}: ")
    assert peak < 500_000_000
