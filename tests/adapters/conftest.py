"""A workbench with a base and adapters, and what PEFT makes of models and adapters of its own."""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tensorsurgeon import api
from tensorsurgeon.errors import TensorSurgeonError
from tests.adapters.cases import CASES
from tests.adapters.folders import RECIPE, write_adapter
from tests.cli.checkpoints import Tensors, read_tensors, write_checkpoint
from tests.conftest import ROOT


class Bench:
    """A base, an adapter and a recipe below a folder.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = folder / "recipe.yaml"

    def lay(
        self,
        base: Tensors,
        adapter: Tensors,
        config: Mapping[str, Any],
        *,
        settings: Mapping[str, Any] | None = None,
        recipe: str = RECIPE,
    ) -> Path:
        """Writes the base with its config, the adapter with its settings, and the recipe."""
        write_checkpoint(self.folder / "base", base, config)
        write_adapter(self.folder / "adapter", adapter, settings)
        self.recipe.write_text(recipe)
        return self.recipe

    def merged(self, **options: Any) -> Tensors:
        """What the recipe gives."""
        made = api.apply(api.plan(self.recipe), overwrite=True, **{"threads": 1, **options})
        return read_tensors(made.path)

    def refused(self, kind: type[TensorSurgeonError], what: str, fix: str = "") -> str:
        """Plans, and holds what is wrong against what should be told of it."""
        with pytest.raises(kind) as caught:
            api.plan(self.recipe)
        told = str(caught.value).replace(f"{self.folder}/", "")
        assert re.search(what, told), told
        assert fix in told, told
        assert not (self.folder / "out").exists()
        return told


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(scope="session")
def peft(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each case, filled by PEFT; see peer.py."""
    if not (ROOT / ".venv-mergekit").exists():
        pytest.skip("there is no .venv-mergekit, which has PEFT as well: `make test` makes it")
    python = request.getfixturevalue("mergekit_python")
    folder = tmp_path_factory.mktemp("peft")
    asked = [case.asked(folder / name) for name, case in CASES.items()]
    (folder / "cases.json").write_text(json.dumps(asked))
    done = subprocess.run(
        [python, Path(__file__).with_name("peer.py"), folder / "cases.json"],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"PEFT failed:\n{done.stderr}")
    return folder
