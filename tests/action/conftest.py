"""A runner whose workspace has a recipe, and an installed tensorsurgeon for steps after Install."""

import re
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.action.runner import ACTION, Runner, program
from tests.action.wheels import wheel
from tests.cli.checkpoints import tiny_llama
from tests.hub.conftest import hub  # noqa: F401 - a fixture

RECIPE = """\
models:
  base: {model}
  grown: {{stack: [{{model: base, layers: [0, 2]}}, {{model: base, layers: [1, 2]}}]}}
result: grown
"""

KEEP = ("true", "false")
"""What the input `keep` can be."""

Given = Mapping[str, Mapping[str, str]]


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """Its workspace has `model`, a Llama of two layers, and `recipe.yaml`, which makes it three."""
    runner = Runner(tmp_path)
    tiny_llama(runner.workspace / "model")
    (runner.workspace / "recipe.yaml").write_text(RECIPE.format(model="./model"))
    return runner


@pytest.fixture
def installed(runner: Runner) -> Given:
    """What Install leaves, but with these tests' own environment."""
    work = runner.temp / "tensorsurgeon.here"
    work.mkdir()
    (work / "environment").symlink_to(sys.prefix)
    return {"install": {"work": str(work)}}


@pytest.fixture
def offline(runner: Runner, tmp_path: Path) -> Runner:
    """Pip sees the packages of these tests' environment, and wheels in `wheels`, but no index."""
    runner.environment |= {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_FIND_LINKS": str(tmp_path / "wheels"),
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it the other way round: this is no isolation
        "PIP_NO_INDEX": "1",
        "PYTHONPATH": sysconfig.get_path("platlib"),
    }
    pinned = re.search(r"uv==([\d.]+)", str(ACTION))
    assert pinned
    wheel(tmp_path / "wheels", "uv", pinned[1], 'printf "%s\\n" uv "$@"')
    return runner


def stand_in(runner: Runner, script: str) -> Given:
    """What Install leaves, but with a tensorsurgeon that is a few lines of bash."""
    work = runner.temp / "tensorsurgeon.stand-in"
    bin_folder = work / "environment" / "bin"
    program(bin_folder / "tensorsurgeon", script)
    program(bin_folder / "python", f'exec "{sys.executable}" "$@"')
    return {"install": {"work": str(work)}}
