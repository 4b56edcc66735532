"""Small models, and mergekit's planner in a process of its own."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.cli.checkpoints import llama_config, llama_tensors, tiny_llama, write_checkpoint
from tests.methods.folders import tuned

DEPTHS = {"a": 6, "b": 6, "c": 6, "base": 6, "deep": 9, "flat": 1, "thin": 1}
"""The models, each with so many layers."""


class Mergekit(Protocol):
    """Asks mergekit's planner what a configuration means."""

    def __call__(self, config: Any, folder: Path | None = None) -> dict[str, Any]:
        """See oracle.py; it merges into a folder, where one is given."""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, (name, depth) in enumerate(DEPTHS.items()):
        tiny_llama(folder / name, depth, seed=seed)
    return folder


@pytest.fixture(scope="session")
def tuned_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one depth, no two of their task vectors' elements of one magnitude."""
    folder = tmp_path_factory.mktemp("tuned")
    base = tuned(llama_tensors(6, dtype="F32"), seed=0, scale=1.0)
    write_checkpoint(folder / "base", base, llama_config(6))
    for seed, name in enumerate("abc", 1):
        write_checkpoint(folder / name, tuned(base, seed=seed, scale=0.3), llama_config(6))
    return folder


@pytest.fixture(scope="session")
def mergekit(mergekit_python: Path) -> Iterator[Mergekit]:
    with subprocess.Popen(
        [mergekit_python, Path(__file__).with_name("oracle.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def mergekit(config: Any, folder: Path | None = None) -> dict[str, Any]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps([config, folder and str(folder)]) + "\n")
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(process.stdout.readline())
            return answer

        yield mergekit
        process.stdin.close()
