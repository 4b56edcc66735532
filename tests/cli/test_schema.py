"""The JSON Schema for editors, and the recipes that are shipped with it."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from ruamel.yaml import YAML

from tensorsurgeon import api
from tests.cli.checkpoints import tiny_llama
from tests.cli.conftest import Command
from tests.conftest import ROOT

RECIPES = ROOT / "recipes"

DEPTHS = {
    "block-expansion": (30, 36),
    "nested": (32, 48),
    "smollm2-dus": (30, 44),
    "solar-10.7b": (32, 48),
    "solar-merge-average": (48, 48),
    "solar-merge-average-40-60": (48, 48),
    "solar-merge-average-60-40": (48, 48),
    "solar-merge-slerp": (48, 48),
}
"""Layers of the sources and of the result of every shipped recipe."""


def load(text: str) -> Any:
    """A YAML text as editors see it."""
    return YAML(typ="safe", pure=True).load(text)


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECIPES / "schema.json").read_text())
    return found


def test_shipped_schema_is_what_the_command_prints(command: Command) -> None:
    printed = command("schema")
    assert (printed.code, printed.err) == (0, "")
    assert printed.out == (RECIPES / "schema.json").read_text(), (
        "make it anew with: tensorsurgeon schema > recipes/schema.json"
    )


def test_schema_is_one(schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_schema_describes_every_parameter(schema: dict[str, Any]) -> None:
    for alternative in schema["$defs"]["Expression"]["oneOf"][1:]:
        assert alternative["description"]
        ((operator, body),) = alternative["properties"].items()
        parameters = body["anyOf"][1] if "anyOf" in body else body
        for name, parameter in parameters["properties"].items():
            assert parameter.get("description"), f"{operator}: {name}"


def test_all_shipped_recipes_are_tested() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(DEPTHS)


@pytest.mark.parametrize("name", DEPTHS)
def test_shipped_recipe_is_bound_to_the_schema_and_keeps_it(
    name: str, schema: dict[str, Any]
) -> None:
    text = (RECIPES / f"{name}.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=./schema.json\n")
    Draft202012Validator(schema).validate(load(text))


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny models, by their depth."""
    folder = tmp_path_factory.mktemp("stand-ins")
    for depth in {depth for depth, _ in DEPTHS.values()}:
        tiny_llama(folder / str(depth), depth)
    return folder


@pytest.mark.parametrize(("name", "depths"), DEPTHS.items(), ids=DEPTHS)
def test_shipped_recipe_is_planned_with_stand_ins_for_its_sources(
    name: str, depths: tuple[int, int], stand_ins: Path
) -> None:
    path = RECIPES / f"{name}.yaml"
    models = load(path.read_text())["models"]
    sources = [name for name, model in models.items() if isinstance(model, str)]
    before, after = depths
    plan = api.plan(path, sources={name: stand_ins / str(before) for name in sources})
    assert len(plan.layer_map) == plan.config["num_hidden_layers"] == after
    assert len(plan.tensors) == 3 + 9 * after
    assert plan.destination is not None
    assert plan.destination.parent == ROOT / "models"


ACCEPTED = {
    "a source": "{models: {a: ./a}, result: a}",
    "a source at length": "{models: {a: {source: {path: ./a, layers: h}}}, result: a}",
    "a source in between": "{models: {a: {source: ./a}}, result: {stack: [{model: a}]}}",
    "a stack at length": "{models: {a: ./a}, result: {stack: {slices: [{model: a}]}}}",
    "half open layers": "{models: {a: ./a}, result: {stack: [{model: a, layers: [0, 1]}]}}",
    "a number": "{models: {a: ./a}, result: {slerp: {models: [a, a], t: 1}}}",
    "a list": "{models: {a: ./a}, result: {slerp: {models: [a, a], t: [0, 1e-3]}}}",
    "rules": "{models: {a: ./a}, result: {slerp: {models: [a, a], "
    "t: [{match: '*', value: [0, 1]}, {value: 0}]}}}",
    "a default": "{models: {a: ./a}, result: {slerp: {models: [a, a], "
    "t: [{match: '*.mlp.*', value: 0}, 0.5]}}}",
    "a list for a default": "{models: {a: ./a}, result: {slerp: {models: [a, a], "
    "t: [{match: '*.mlp.*', value: 0}, [0, 1]]}}}",
    "weights of each kind": "{models: {a: ./a}, result: {linear: {models: [a, a], "
    "weights: [-3, [0, 1]], normalize: false}}}",
    "zeroed tensors": "{models: {a: ./a}, result: {block_expansion: {model: a, every: 1, "
    "zero: ['*.down_proj.*', '*.o_proj.*']}}}",
    "all of the output": "{models: {a: ./a}, result: a, seed: 7, output: {path: ./out, "
    "dtype: float16, max_shard_size: 5GB, tokenizer: a}}",
    "a size in bytes": "{models: {a: ./a}, result: a, output: {max_shard_size: 5000000}}",
}


@pytest.mark.parametrize("text", ACCEPTED.values(), ids=ACCEPTED)
def test_what_the_schema_accepts_is_planned(
    text: str, schema: dict[str, Any], tmp_path: Path
) -> None:
    Draft202012Validator(schema).validate(load(text))
    tiny_llama(tmp_path / "a")
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace("layers: h", "layers: model.layers"))
    assert api.plan(path).tensors


REFUSED = {
    "no models": "{result: a}",
    "empty models": "{models: {}, result: a}",
    "models in a list": "{models: [./a], result: a}",
    "no result": "{models: {a: ./a}}",
    "a typo in a section": "{models: {a: ./a}, result: a, ouput: {}}",
    "a typo in an operator": "{models: {a: ./a}, result: {slrep: {models: [a, a], t: 1}}}",
    "a typo in a parameter": "{models: {a: ./a}, result: {slerp: {models: [a, a], tt: 1}}}",
    "a parameter left out": "{models: {a: ./a}, result: {slerp: {models: [a, a]}}}",
    "two operators": "{models: {a: ./a}, result: {stack: [{model: a}], source: ./a}}",
    "a typo in a slice": "{models: {a: ./a}, result: {stack: [{modle: a}]}}",
    "three layers": "{models: {a: ./a}, result: {stack: [{model: a, layers: [0, 1, 2]}]}}",
    "layers in words": "{models: {a: ./a}, result: {stack: [{model: a, layers: [0, all]}]}}",
    "layers of truth": "{models: {a: ./a}, result: {stack: [{model: a, layers: [false, true]}]}}",
    "an empty stack": "{models: {a: ./a}, result: {stack: []}}",
    "t above 1": "{models: {a: ./a}, result: {slerp: {models: [a, a], t: 1.5}}}",
    "t below 0": "{models: {a: ./a}, result: {slerp: {models: [a, a], t: [0, -0.1]}}}",
    "t in words": "{models: {a: ./a}, result: {slerp: {models: [a, a], t: half}}}",
    "t true": "{models: {a: ./a}, result: {slerp: {models: [a, a], t: true}}}",
    "t of nothing": "{models: {a: ./a}, result: {slerp: {models: [a, a], t: []}}}",
    "a list in a list": "{models: {a: ./a}, result: {slerp: {models: [a, a], t: [[0, 1], 1]}}}",
    "a typo in a rule": "{models: {a: ./a}, result: {slerp: {models: [a, a], "
    "t: [{macth: '*', value: 0}, 1]}}}",
    "a rule without a value": "{models: {a: ./a}, result: {slerp: {models: [a, a], "
    "t: [{match: '*'}, 1]}}}",
    "one model to merge": "{models: {a: ./a}, result: {linear: {models: [a]}}}",
    "three models on an arc": "{models: {a: ./a}, result: {slerp: {models: [a, a, a], t: 1}}}",
    "a weight for all": "{models: {a: ./a}, result: {linear: {models: [a, a], weights: 1}}}",
    "removing in words": "{models: {a: ./a}, result: {depth_up_scale: {model: a, remove: one}}}",
    "removing a text": "{models: {a: ./a}, result: {depth_up_scale: {model: a, remove: '1'}}}",
    "removing truth": "{models: {a: ./a}, result: {depth_up_scale: {model: a, remove: true}}}",
    "removing a half": "{models: {a: ./a}, result: {depth_up_scale: {model: a, remove: 0.5}}}",
    "removing less than none": "{models: {a: ./a}, "
    "result: {depth_up_scale: {model: a, remove: -1}}}",
    "every zeroth layer": "{models: {a: ./a}, result: {block_expansion: {model: a, every: 0}}}",
    "an unknown dtype": "{models: {a: ./a}, result: a, output: {dtype: bf16}}",
    "a typo in the output": "{models: {a: ./a}, result: a, output: {pth: ./out}}",
    "an output that is text": "{models: {a: ./a}, result: a, output: ./out}",
    "a size that is truth": "{models: {a: ./a}, result: a, output: {max_shard_size: true}}",
    "a negative seed": "{models: {a: ./a}, result: a, seed: -1}",
    "a seed of truth": "{models: {a: ./a}, result: a, seed: true}",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_the_schema_refuses_is_a_mistake(
    text: str, schema: dict[str, Any], tmp_path: Path, command: Command
) -> None:
    assert not Draft202012Validator(schema).is_valid(load(text))
    tiny_llama(tmp_path / "a")
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert command("plan", path).code == 3
