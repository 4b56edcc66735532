"""The command line's fixtures, which serve here as well, and a plan to change one thing of."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tensorsurgeon import api
from tensorsurgeon.plan import Plan
from tests.cli.checkpoints import tiny_llama
from tests.cli.conftest import command, models, recipe, refused

__all__ = ["command", "models", "recipe", "refused"]

MERGE = """\
models:
  a: ./a
  b: ./b
result: {slerp: {models: [a, b], t: 0.5}}
output: {path: ./merged}
"""


@pytest.fixture(scope="session")
def merge_plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """SLERP of two Llamas of two layers."""
    folder = tmp_path_factory.mktemp("plan")
    tiny_llama(folder / "a", seed=1)
    tiny_llama(folder / "b", seed=2)
    (folder / "recipe.yaml").write_text(MERGE)
    return api.plan(folder / "recipe.yaml")


def card_of(plan: Plan) -> str:
    """The README.md of a plan."""
    return own_files(plan)["README.md"].decode()


def own_files(plan: Plan) -> Mapping[str, bytes]:
    """What a plan adds of its own, by name."""
    return {own.name: own.data for own in plan.own_files}


def give_license(folder: Path, front_matter: str) -> None:
    """Write a model card with this front matter."""
    (folder / "README.md").write_text(f"---\n{front_matter}\n---\n# A model\n")
