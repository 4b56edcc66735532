"""Ctrl-C and kill: the command ends at once and leaves nothing of the output."""

import signal
from pathlib import Path

import pytest

from tests.cli.checkpoints import sparse_llama, tiny_llama
from tests.cli.conftest import WriteRecipe, listing
from tests.cli.processes import stopped_by

BIG = 10**9
"""Elements of each tensor: minutes of work, were it let go on."""

EXPRESSIONS = {
    "copied": "a",
    "computed": "{linear: {models: [a, a], weights: [0.5, 0.25], normalize: false}}",
}


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A model of 4 GB that takes no space."""
    return sparse_llama(tmp_path / "a", BIG)


@pytest.mark.usefixtures("big")
@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (signal.SIGINT, 130, "\ninterrupted\n"),
        (signal.SIGTERM, 143, ""),
    ],
    ids=["interrupt", "terminate"],
)
def test_signal_ends_a_run_at_once_and_leaves_nothing(
    expression: str,
    number: signal.Signals,
    code: int,
    message: str,
    tmp_path: Path,
    recipe: WriteRecipe,
) -> None:
    path = recipe(f"models: {{a: ./a}}\nresult: {expression}\noutput: {{path: ./new/out}}\n")
    before = listing(tmp_path)

    def is_writing() -> bool:
        shards = (tmp_path / "new").glob(".out.part/checkpoint/model.safetensors")
        return any(shard.stat().st_blocks * 512 > 20_000_000 for shard in shards)

    done, seconds = stopped_by(number, is_writing, "apply", path, "-q")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", message)
    assert listing(tmp_path) == before
    assert seconds < 2  # a quarter of a second where nothing else is going on


@pytest.mark.usefixtures("big")
def test_interrupted_overwriting_leaves_the_old_checkpoint(
    tmp_path: Path, recipe: WriteRecipe
) -> None:
    tiny_llama(tmp_path / "out")
    path = recipe("models: {a: ./a}\nresult: a\noutput: {path: ./out}\n")
    before = listing(tmp_path)

    def is_writing() -> bool:
        return any(tmp_path.glob(".out.part/checkpoint/model.safetensors"))

    done, _ = stopped_by(signal.SIGINT, is_writing, "apply", path, "-q", "--overwrite")
    assert done.returncode == 130
    assert listing(tmp_path) == before
