"""The training manual says what the program does."""

import json
import re
from pathlib import Path

import pytest

from tensorsurgeon.trainer.run_file import RunFile, json_schema, parse_run, read_run

FOLDER = Path(__file__).parents[2] / "recipes" / "training"
MANUAL = (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_every_run_file_in_the_repository_is_read(path: Path) -> None:
    assert read_run(path).steps > 0


def test_the_manuals_run_file_is_read_and_names_every_setting() -> None:
    (text,) = re.findall(r"```yaml\n(model: .*?)```", MANUAL, flags=re.DOTALL)
    parse_run(text.encode(), Path("run.yaml"))
    named = set(re.findall(r"(\w+):", MANUAL))
    known = set(RunFile.model_fields)
    for field in RunFile.model_fields.values():
        known |= set(getattr(field.annotation, "model_fields", {}))
    assert known <= named


def test_the_published_schema_is_that_of_the_program() -> None:
    assert json.loads((FOLDER / "schema.json").read_bytes()) == json_schema()
