"""The commands on recipes of mergekit's: the plan of their conversion, mergekit's checkpoint."""

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from ruamel.yaml import YAML

from tensorsurgeon import api
from tensorsurgeon.mergekit import mergekit_schema
from tensorsurgeon.mergekit.methods import METHODS
from tensorsurgeon.operators import OPERATORS
from tensorsurgeon.plan import Plan
from tensorsurgeon.plan.nodes import origin_of
from tests.cli.checkpoints import read_config, read_tensors
from tests.mergekit.conftest import Mergekit
from tests.mergekit.end_to_end import END_TO_END
from tests.mergekit.recipes import RECIPES


def write(folder: Path, text: str, models: Path) -> Path:
    path = folder / "mergekit_config.yml"
    path.write_text(dedent(text).replace("~", f"{models}/"))
    return path


def load(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def run(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tensorsurgeon", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def made_by(plan: Plan) -> dict[str, Any]:
    """What a plan makes: all of it but what the recipe is called and what is said of it."""
    told = {field.name: getattr(plan, field.name) for field in fields(plan)}
    tensors = [
        (tensor.spec, tensor.shard, tensor.offset, str(tensor.node), origin_of(tensor.node))
        for tensor in plan.tensors
    ]
    return {k: v for k, v in told.items() if k not in ("recipe", "notes")} | {"tensors": tensors}


@pytest.mark.parametrize("text", RECIPES.values(), ids=RECIPES)
def test_plan_is_that_of_the_converted_recipe(text: str, models: Path, tmp_path: Path) -> None:
    path = write(tmp_path, text, models)
    converted = tmp_path / "recipe.yaml"
    converted.write_text(api.convert(path))
    assert made_by(api.plan(path)) == made_by(api.plan(converted))


@pytest.mark.parametrize("text", END_TO_END.values(), ids=END_TO_END)
def test_checkpoint_is_the_one_that_mergekit_makes(
    text: str, tuned_models: Path, mergekit: Mergekit, tmp_path: Path
) -> None:
    path = write(tmp_path, text, tuned_models)
    theirs = tmp_path / "theirs"
    assert mergekit(load(path.read_text()), theirs) == {}
    run("apply", path, "-q", "-o", tmp_path / "ours")
    found, wanted = read_tensors(tmp_path / "ours"), read_tensors(theirs)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    config = read_config(tmp_path / "ours")
    assert config["num_hidden_layers"] == read_config(theirs)["num_hidden_layers"]
    assert config["dtype"] == "float32"


def test_apply_of_the_conversion_gives_the_same_bytes(models: Path, tmp_path: Path) -> None:
    path = write(tmp_path, END_TO_END["slerp"], models)
    converted = tmp_path / "recipe.yaml"
    converted.write_text(run("convert", path))
    for recipe, folder in ((path, "theirs"), (converted, "ours")):
        run("apply", recipe, "-q", "-o", tmp_path / folder)
    shard = "model.safetensors"
    made = [(tmp_path / folder / shard).read_bytes() for folder in ("theirs", "ours")]
    assert made[0] == made[1]
    manifest = json.loads((tmp_path / "theirs" / "tensorsurgeon.json").read_text())
    assert "slice-1" in manifest["recipe"]["text"]
    again = tmp_path / "theirs" / "recipe.yaml"
    sources = [f"-s{name}={models / name}" for name in "ab"]
    run("apply", again, "-q", "-o", tmp_path / "again", *sources)
    assert (tmp_path / "again" / shard).read_bytes() == made[0]


def test_plan_tells_what_has_no_place_in_a_recipe(models: Path, tmp_path: Path) -> None:
    told = run("plan", write(tmp_path, RECIPES["ties"], models))
    assert "note: line 11: no int8_mask: masks take no memory here" in told


def test_mistake_is_one_message_at_its_place(models: Path, tmp_path: Path, run_cli: Any) -> None:
    text = END_TO_END["task_arithmetic"].replace("-0.5", "x")
    path = write(tmp_path, text, models)
    column = path.read_text().splitlines()[5].index("x}") + 1
    for command in ("apply", "plan", "convert"):
        done = run_cli(command, path)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr == f"{path}:6:{column}: weight: a number, not text\n"


def test_missing_source_is_told_at_its_place(models: Path, tmp_path: Path, run_cli: Any) -> None:
    path = write(tmp_path, END_TO_END["task_arithmetic"].replace("~b,", "~bb,"), models)
    done = run_cli("plan", path)
    assert done.returncode == 5
    assert done.stderr.startswith(f"{path}:6:13: there is no folder {models}/bb\n")


def test_filter_that_matches_nothing_is_told_at_the_method(
    models: Path, tmp_path: Path, run_cli: Any
) -> None:
    text = END_TO_END["linear"].replace("filter: mlp", "filter: mpl")
    done = run_cli("plan", write(tmp_path, text, models))
    assert done.returncode == 3
    assert ":2:15: 'linear': weights: rule '*mpl*' matches no tensor" in done.stderr


def test_layers_that_are_not_there_are_told_at_their_range(
    models: Path, tmp_path: Path, run_cli: Any
) -> None:
    text = END_TO_END["slerp"].replace("layer_range: [0, 3]", "layer_range: [4, 7]")
    path = write(tmp_path, text, models)
    done = run_cli("plan", path)
    assert done.returncode == 3
    column = path.read_text().splitlines()[4].rindex("[4, 7]") + 1  # that of the base
    assert done.stderr.startswith(f"{path}:5:{column}: 'stack': layers [4, 7] is out of range\n")


def test_recipe_of_ours_is_not_converted(tmp_path: Path, run_cli: Any) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("models: {merge_method: ./a}\nresult: merge_method\n")
    done = run_cli("convert", path)
    assert done.returncode == 3
    assert done.stderr == f"{path}: has no 'merge_method': it is no recipe of mergekit's\n"


@pytest.mark.parametrize("text", RECIPES.values(), ids=RECIPES)
def test_schema_of_mergekits_recipes_takes_them(text: str, models: Path) -> None:
    schema = mergekit_schema()
    Draft202012Validator.check_schema(schema)
    recipe = load(dedent(text).replace("~", f"{models}/").replace(": yes", ": true"))
    recipe = json.loads(json.dumps(recipe).replace('"0.53"', "0.53").replace('"off"', "false"))
    assert list(Draft202012Validator(schema).iter_errors(recipe)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "{merge_method: dare_tie, models: [{model: a}]}",
        "{merge_method: linear, models: [{modle: a}]}",
        "{merge_method: linear, models: [{model: a}], dytpe: float16}",
        "{merge_method: linear, models: [{model: a}], parameters: {density: 0.5}}",
        "{merge_method: ties, models: [{model: a}], parameters: {density: 1.5}}",
        "{merge_method: ties, models: [{model: a}], parameters: {density: [{filter: mlp}]}}",
    ],
)
def test_schema_of_mergekits_recipes_refuses_mistakes(wrong: str) -> None:
    assert not Draft202012Validator(mergekit_schema()).is_valid(load(wrong))


def test_schema_command_prints_the_schema_of_the_kind_of_recipe(
    models: Path, tmp_path: Path
) -> None:
    path = write(tmp_path, RECIPES["ties"], models)
    assert json.loads(run("schema", path)) == mergekit_schema()
    (tmp_path / "ours.yaml").write_text(api.convert(path))
    assert run("schema", tmp_path / "ours.yaml") == run("schema")


def test_defaults_of_the_operators_are_mergekits() -> None:
    operators = {kind.operator: kind for kind in OPERATORS}
    for method in METHODS.values():
        known = {
            field.alias or name: field
            for name, field in operators[method.name].model_fields.items()
        }
        for parameter in method.parameters:
            if parameter.default is None or parameter.ours not in known:
                continue
            default = known[parameter.ours].get_default()
            default = default[0] if isinstance(default, tuple) else default
            wanted = parameter.default
            if isinstance(wanted, bool):
                assert parameter.only_with or default == parameter.switch[wanted], parameter
            else:
                assert str(default) == f"{wanted:g}", (method.name, parameter)
