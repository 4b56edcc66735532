"""Parameters that are one for each model: what may be written, and where mistakes are told."""

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from ruamel.yaml import YAML

from tensorsurgeon import api
from tensorsurgeon.errors import RecipeError
from tests.cli.checkpoints import tiny_llama

RECIPE = """\
models: {{base: ./base, m1: ./m1, m2: ./m2}}
result:
  ties:
    base: base
    models: [m1, m2]
    lambda: {factor}
    density:
      each:
        - {first}
        - - {{match: "*.mlp.*", value: {inner}}}
          - {second}
output: {{path: ./out}}
"""
GOOD = {"factor": "1", "first": "0.3", "inner": "0.1", "second": "[0.4, 0.9]"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("base", "m1", "m2"):
        tiny_llama(tmp_path / name, 3)
    tiny_llama(tmp_path / "m1", 3, seed=1)
    tiny_llama(tmp_path / "m2", 3, seed=2)
    return tmp_path


def written(folder: Path, **parameters: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(**GOOD | parameters))
    return path


def accepts(path: Path) -> bool:
    """Whether an editor with the schema would."""
    found = YAML(typ="safe", pure=True).load(path.read_text())
    return bool(Draft202012Validator(api.schema()).is_valid(found))


def test_schedules_stand_inside_each(folder: Path) -> None:
    factor = '[{match: "*.self_attn.*", value: [0.2, 0.8], outside: 1}, 0.5]'
    path = written(folder, factor=factor)
    assert accepts(path)
    shown = {t.spec.name: str(t.node) for t in api.plan(path).tensors}
    ending = {
        "model.layers.0.mlp.up_proj.weight": "lambda=0.5, density=[0.3, 0.1])",
        "model.layers.1.self_attn.q_proj.weight": "lambda=0.5, density=[0.3, 0.65])",
        "model.layers.2.self_attn.q_proj.weight": "lambda=0.8, density=[0.3, 0.9])",
        "model.norm.weight": "lambda=0.5, density=[0.3, 0.9])",
    }
    for name, text in ending.items():
        assert shown[name].endswith(text)
        assert shown[name].startswith(f"ties(base:{name}, m1:{name}, m2:{name}, weights=[1, 1], ")


@pytest.mark.parametrize(
    ("parameters", "place", "what"),
    [
        ({"first": "1.3"}, "9:11", "density.each.0: 1.3 is outside 0 to 1"),
        ({"first": "x"}, "9:11", "density.each.0: a number, a list"),
        ({"first": "[]"}, "9:11", "density.each.0: an empty list gives no value"),
        ({"first": "{each: [1]}"}, "9:11", "density.each.0: a number, a list"),
        ({"inner": "7"}, "10:13", "density.each.1.0: 7 is outside 0 to 1"),
        ({"second": "[0.4, -1]"}, "11:13", "density.each.1.1: -1 is outside 0 to 1"),
    ],
)
def test_mistake_inside_each_is_told_at_its_line(
    parameters: dict[str, Any], place: str, what: str, folder: Path
) -> None:
    path = written(folder, **parameters)
    assert not accepts(path)
    with pytest.raises(RecipeError) as caught:
        api.plan(path)
    assert f"recipe.yaml:{place}: 'ties': {what}" in str(caught.value)


def test_another_number_of_values_is_told(folder: Path) -> None:
    path = written(folder, first="0.3\n        - 0.2")
    with pytest.raises(RecipeError, match="there are 2 models and 3 values of density"):
        api.plan(path)


def test_other_keys_than_each_are_told(folder: Path) -> None:
    path = written(folder)
    path.write_text(path.read_text().replace("each:", "eech:"))
    assert not accepts(path)
    with pytest.raises(RecipeError, match=r"a value for all models, or \{each: \[one for each"):
        api.plan(path)
