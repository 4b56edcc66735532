"""Adapters as a part of recipes: merged with each other, stacked, replaced, resumed and told of."""

import json
from typing import Any

import numpy as np
import pytest

from tensorsurgeon import api
from tensorsurgeon.execute.provenance import binding_of
from tests.adapters.conftest import Bench
from tests.adapters.folders import RECIPE, adapter_config, factors, write_adapter
from tests.adapters.test_formulas import SLACK, exact
from tests.cli.checkpoints import Tensors, llama_config, llama_tensors, read_tensors
from tests.conftest import RunCli
from tests.methods.numerics import float64, relative_error

MATRIX, OTHER = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"
SHAPE = (8, 8)

BOTH = """models:
  base: ./base
  one: {lora: {model: base, adapter: ./one}}
  two: {lora: {model: base, adapter: ./two, weight: 0.5}}
"""


@pytest.fixture
def two(bench: Bench) -> Bench:
    """A base and two adapters over it."""
    bench.lay(llama_tensors(dtype="F64"), factors(MATRIX, SHAPE), llama_config(), recipe=BOTH)
    for seed, name in enumerate(("one", "two")):
        tensors = factors(MATRIX, SHAPE, seed=seed, magnitude=name == "two")
        settings = adapter_config(use_dora=name == "two")
        write_adapter(bench.folder / name, tensors, settings)
    return bench


def adapters(bench: Bench, base: Tensors) -> list[Any]:
    """What the two make of the tensor that they change."""
    tensors = [factors(MATRIX, SHAPE, seed=seed, magnitude=seed == 1) for seed in (0, 1)]
    return [
        exact(base, tensors[0], MATRIX, 6 / 4),
        exact(base, tensors[1], MATRIX, 6 / 4, share=0.5),
    ]


EXPRESSIONS = {
    "linear": "{linear: {models: [one, two], weights: [0.3, 0.7]}}",
    "task_arithmetic": "{task_arithmetic: {base: base, models: [one, two], weights: [0.3, 0.7]}}",
    "slerp": "{slerp: {models: [one, two], t: 0.25}}",
    "ties": "{ties: {base: base, models: [one, two], density: 1.0}}",
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_two_adapters_over_one_base_are_merged(name: str, threads: int, two: Bench) -> None:
    two.recipe.write_text(f"{BOTH}result: {EXPRESSIONS[name]}\noutput: {{path: ./out}}\n")
    base = read_tensors(two.folder / "base")
    found = two.merged(threads=threads)
    for other, values in base.items():
        if other != f"{MATRIX}.weight":
            assert found[other].tobytes() == values.tobytes(), other
    origin = float64(base[f"{MATRIX}.weight"])
    one, half = adapters(two, base)
    merged = found[f"{MATRIX}.weight"]
    if name == "linear":
        assert relative_error(merged, 0.3 * one + 0.7 * half) < SLACK
    elif name == "task_arithmetic":
        right = origin + 0.3 * (one - origin) + 0.7 * (half - origin)
        assert relative_error(merged, right) < SLACK
    else:
        assert merged.tobytes() != origin.tobytes()


def test_an_adapter_goes_upon_a_merge_and_upon_another_adapter(two: Bench) -> None:
    inner = "{linear: {models: [base, one], weights: [1, 1]}}"
    result = f"{{lora: {{model: {inner}, adapter: ./two, weight: 0.5}}}}"
    text = "".join(BOTH.splitlines(keepends=True)[:3])
    two.recipe.write_text(f"{text}result: {result}\noutput: {{path: ./out}}\n")
    base = read_tensors(two.folder / "base")
    tensors = [factors(MATRIX, SHAPE, seed=seed, magnitude=seed == 1) for seed in (0, 1)]
    origin = float64(base[f"{MATRIX}.weight"])
    below = {f"{MATRIX}.weight": (origin + exact(base, tensors[0], MATRIX, 6 / 4)) / 2}
    right = exact(below, tensors[1], MATRIX, 6 / 4, share=0.5)
    assert relative_error(two.merged()[f"{MATRIX}.weight"], right) < SLACK


def test_an_adapted_model_is_stacked(two: Bench) -> None:
    stack = "{stack: [{model: one, layers: [0, 1]}, {model: base}]}"
    text = "".join(BOTH.splitlines(keepends=True)[:3])
    two.recipe.write_text(f"{text}result: {stack}\noutput: {{path: ./out}}\n")
    found, base = two.merged(), read_tensors(two.folder / "base")
    right = exact(base, factors(MATRIX, SHAPE), MATRIX, 6 / 4)
    assert relative_error(found[f"{MATRIX}.weight"], right) < SLACK
    assert found[f"{OTHER}.weight"].tobytes() == base[f"{MATRIX}.weight"].tobytes()


def test_an_adapters_model_goes_deeper_first(bench: Bench) -> None:
    """As PEFT's layer_replication does: the adapter names layers of the deeper model."""
    base = llama_tensors(dtype="F64")
    adapter = factors("model.layers.3.self_attn.q_proj", SHAPE)
    deep = "{stack: [{model: base}, {model: base}]}"
    recipe = RECIPE.replace("model: base", f"model: {deep}")
    bench.lay(base, adapter, llama_config(), recipe=recipe)
    found = bench.merged()
    twin = {name.replace("layers.1.", "layers.3."): tensor for name, tensor in base.items()}
    right = exact(twin, adapter, "model.layers.3.self_attn.q_proj", 6 / 4)
    assert relative_error(found["model.layers.3.self_attn.q_proj.weight"], right) < SLACK
    assert found[f"{OTHER}.weight"].tobytes() == base[f"{OTHER}.weight"].tobytes()


@pytest.fixture
def laid(bench: Bench) -> Bench:
    """A base and an adapter."""
    bench.lay(llama_tensors(), factors(MATRIX, SHAPE), llama_config())
    return bench


def test_an_adapter_is_a_source_of_plan_manifest_and_explanation(
    laid: Bench, run_cli: RunCli
) -> None:
    planned = run_cli("plan", laid.recipe)
    assert f"source adapter ./adapter  {laid.folder / 'adapter'}" in planned.stdout
    assert run_cli("apply", laid.recipe).returncode == 0
    manifest = json.loads((laid.folder / "out/tensorsurgeon.json").read_text())
    source = manifest["sources"]["adapter ./adapter"]
    assert source["folder"] == "adapter"
    assert list(source["files"]) == ["adapter_model.safetensors"]
    origin = manifest["tensors"][f"{MATRIX}.weight"]["origin"]
    assert origin["operator"] == "lora"
    assert origin["parameters"] == {"scale": 1.5, "weight": 1.0}
    assert [inner["source"] for inner in origin["inputs"]] == ["base", *["adapter ./adapter"] * 2]
    explained = run_cli("explain", laid.folder / "out", f"{MATRIX}.weight").stdout
    assert "lora, scale = 1.5, weight = 1 of" in explained
    assert "source adapter ./adapter is the folder adapter" in explained
    assert run_cli("verify", laid.folder / "out").returncode == 0
    assert "adapter ./adapter" in (laid.folder / "out/README.md").read_text()


def test_the_result_never_names_a_folder_of_this_machine(laid: Bench, run_cli: RunCli) -> None:
    adapter = laid.folder / "adapter"
    laid.recipe.write_text(RECIPE.replace("./adapter", str(adapter)))
    assert run_cli("apply", laid.recipe).returncode == 0
    for path in (laid.folder / "out").iterdir():
        if path.suffix != ".safetensors":
            assert str(laid.folder) not in path.read_text(), path.name
    assert "adapter: ./adapter" in (laid.folder / "out/recipe.yaml").read_text()


def test_an_adapter_is_replaced_by_the_name_of_its_model(two: Bench, run_cli: RunCli) -> None:
    text = "models:\n  base: ./base\n  one: {lora: {model: base, adapter: ./gone}}\nresult: one\n"
    two.recipe.write_text(text)
    given = f"one={two.folder / 'one'}"
    done = run_cli("apply", two.recipe, "-o", two.folder / "out", "-s", given)
    assert done.returncode == 0, done.stderr
    found = read_tensors(two.folder / "out")[f"{MATRIX}.weight"]
    base = read_tensors(two.folder / "base")
    right = exact(base, factors(MATRIX, SHAPE), MATRIX, 6 / 4)
    assert relative_error(found, right) < SLACK
    refused = run_cli("plan", two.recipe, "-s", "two=./x")
    assert "there is no source 'two' to replace" in refused.stderr
    assert "base, one" in refused.stderr


def test_a_folder_may_be_a_model_and_an_adapter(laid: Bench) -> None:
    for path in (laid.folder / "adapter").iterdir():
        path.rename(laid.folder / "base" / path.name)
    laid.recipe.write_text(RECIPE.replace("./adapter", "./base"))
    plan = api.plan(laid.recipe)
    assert list(plan.sources) == ["base", "adapter ./base"]
    api.apply(plan, threads=1)
    manifest = json.loads((laid.folder / "out/tensorsurgeon.json").read_text())
    configs = [source["config"] for source in manifest["sources"].values()]
    assert configs[0] != configs[1]


def test_a_run_is_another_when_its_adapter_has_changed(laid: Bench) -> None:
    plan = api.plan(laid.recipe)
    assert binding_of(api.plan(laid.recipe)) == binding_of(plan)
    write_adapter(laid.folder / "adapter", factors(MATRIX, SHAPE, seed=5))
    assert binding_of(api.plan(laid.recipe)) != binding_of(plan)


def test_output_into_the_adapters_folder_is_refused(laid: Bench, run_cli: RunCli) -> None:
    done = run_cli("apply", laid.recipe, "-o", laid.folder / "adapter", "--overwrite")
    assert done.returncode == 6, done.stderr
    assert (laid.folder / "adapter/adapter_config.json").exists()


def test_schema_has_the_operator(laid: Bench) -> None:
    import jsonschema
    from ruamel.yaml import YAML

    recipe = YAML(typ="safe").load(laid.recipe.read_text())
    jsonschema.validate(recipe, api.schema())
    del recipe["result"]["lora"]["adapter"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(recipe, api.schema())


def test_update_that_rounding_loses_is_reported(laid: Bench, run_cli: RunCli) -> None:
    tensors = {name: values * np.float32(1e-3) for name, values in factors(MATRIX, SHAPE).items()}
    write_adapter(laid.folder / "adapter", tensors)
    done = run_cli("apply", laid.recipe)
    assert "of the update" in done.stdout + done.stderr
