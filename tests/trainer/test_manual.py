"""The training manual says what the program does."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from tensorsurgeon.trainer.run_file import FREE, RunFile, json_schema, parse_run, read_run

FOLDER = Path(__file__).parents[2] / "recipes" / "training"
MANUAL = (FOLDER / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", MANUAL, flags=re.DOTALL)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a field may hold, also in tuples."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


def settings_of(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """Every setting as `data.train.path`; items of a list have no number."""
    for name, field in model.model_fields.items():
        inside = list(models_in(field.annotation))
        yield from [] if inside else [before + name]
        for part in inside:
            yield from settings_of(part, f"{before}{name}.")


def settings_in(document: Any, before: str = "") -> Iterator[str]:
    """The settings that a run file gives, named alike."""
    if isinstance(document, Mapping):
        for name, value in document.items():
            yield from settings_in(value, f"{before}.{name}" if before else name)
    elif isinstance(document, list) and any(isinstance(item, Mapping) for item in document):
        for item in document:
            yield from settings_in(item, before)
    else:
        yield before


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_every_run_file_in_the_repository_is_read(path: Path) -> None:
    assert read_run(path).steps > 0


def test_the_manuals_run_file_is_read_with_steps_and_with_tokens() -> None:
    text = EXAMPLES[0]
    assert parse_run(text.encode(), Path("run.yaml")).settings.steps is not None
    by_tokens = re.sub(r"(?m)^steps: \S+ +# or (tokens: \S+)$", r"\1", text)
    assert parse_run(by_tokens.encode(), Path("run.yaml")).settings.tokens is not None


def test_the_manuals_examples_name_every_setting_there_is() -> None:
    named = {path for text in EXAMPLES for path in settings_in(YAML(typ="safe").load(text))}
    assert set(settings_of(RunFile)) - named == {"tokens"}


def test_the_manual_names_every_setting_that_may_differ_when_a_run_is_resumed() -> None:
    (sentence,) = re.findall(r"what differs is named; ([^.;]*?)\smay\s+differ", MANUAL)
    assert set(re.findall(r"`([^`]+)`", sentence)) == {path.replace(".", ": ") for path in FREE}


def test_the_published_schema_is_that_of_the_program() -> None:
    assert json.loads((FOLDER / "schema.json").read_bytes()) == json_schema()
