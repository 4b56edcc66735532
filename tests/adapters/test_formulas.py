"""Adapted tensors against the formula in float64, and their bytes, through the whole engine."""

import math
from typing import Any

import numpy as np
import pytest

from tensorsurgeon import api
from tensorsurgeon.specs import SPAN
from tests.adapters.conftest import Bench
from tests.adapters.folders import PREFIX, RECIPE, adapter_config, factors
from tests.adapters.references import adapted
from tests.cli.checkpoints import (
    NUMPY_DTYPES,
    Tensors,
    file_bytes,
    llama_config,
    llama_tensors,
)
from tests.conftest import RunCli
from tests.methods.numerics import assert_rounded_once, float64, relative_error

SLACK = 1e-14
MATRIX, OTHER = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"
EMBEDDING = "model.embed_tokens"
SHAPES = {MATRIX: (8, 8), OTHER: (16, 8), EMBEDDING: (8, 16)}

WEIGHTED = RECIPE.replace("./adapter}", "./adapter, weight: 0.3}")


def exact(base: Tensors, adapter: Tensors, module: str, scale: float, **how: Any) -> Any:
    parts = {name.removeprefix(f"{PREFIX}{module}."): float64(x) for name, x in adapter.items()}
    kind = "lora_embedding_{}" if how.get("transposed") else "lora_{}.weight"
    return adapted(
        float64(base[f"{module}.weight"]),
        parts[kind.format("A")],
        parts[kind.format("B")],
        scale=scale,
        magnitude=parts.get("lora_magnitude_vector"),
        **how,
    )


def of_modules(*modules: str, **how: Any) -> Tensors:
    made: Tensors = {}
    for seed, module in enumerate(modules, 1):
        embedding = module == EMBEDDING
        made |= factors(module, SHAPES[module], seed=seed, embedding=embedding, **how)
    return made


@pytest.mark.parametrize("dtype", ["F64", "F32", "BF16", "F16", "F8_E4M3"])
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("recipe", [RECIPE, WEIGHTED], ids=["whole", "weighted"])
def test_result_is_the_formula_rounded_once(
    dtype: str, dora: bool, recipe: str, bench: Bench
) -> None:
    base = llama_tensors(dtype=dtype)
    adapter = of_modules(MATRIX, OTHER, EMBEDDING, dtype="BF16", magnitude=dora)
    settings = adapter_config(use_dora=dora)
    config = llama_config(dtype=dtype)
    bench.lay(base, adapter, config, settings=settings, recipe=recipe)
    found = bench.merged()
    share = 0.3 if recipe is WEIGHTED else 1.0
    for module in SHAPES:
        transposed = module == EMBEDDING
        right = exact(base, adapter, module, 6 / 4, share=share, transposed=transposed)
        tensor = found.pop(f"{module}.weight")
        if dtype == "F64":
            assert relative_error(tensor, right) < SLACK
        else:
            assert_rounded_once(tensor, right, SLACK)
    assert all(tensor.tobytes() == base[name].tobytes() for name, tensor in found.items())


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({"lora_alpha": 1.5}, 1.5 / 4),
        ({"use_rslora": True}, 6 / math.sqrt(4)),
        ({"alpha_pattern": {"q_proj": 2}}, 2 / 4),
        ({"alpha_pattern": {"up_proj": 2, "self_attn.q_proj": 3}}, 3 / 4),
        ({"alpha_pattern": {"proj": 2, "0.self_attn.q_proj$": 3, "q_proj": 5}}, 3 / 4),
        ({"alpha_pattern": {r"^model\.layers.0\.self_attn.q_proj": 2}}, 2 / 4),
        ({"alpha_pattern": {r"^layers.0.self_attn.q_proj": 2}}, 6 / 4),
        ({"r": 8, "rank_pattern": {"q_proj": 4}}, 6 / 4),
        ({"r": 8, "rank_pattern": {"q_proj": 4}, "use_rslora": True}, 6 / 2),
    ],
)
def test_scale_is_what_the_config_says_of_the_module(
    settings: dict[str, Any], scale: float, bench: Bench
) -> None:
    base, adapter = llama_tensors(dtype="F64"), of_modules(MATRIX)
    bench.lay(base, adapter, llama_config(), settings=adapter_config(**settings))
    right = exact(base, adapter, MATRIX, scale)
    assert relative_error(bench.merged()[f"{MATRIX}.weight"], right) < SLACK


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize(
    "shape",
    [(700, 513), (3, SPAN + 5), (SPAN // 2 + 3, 2), (1, 1), (2 * SPAN, 1)],
    ids=["several_spans", "long_rows", "short_rows", "one", "column"],
)
def test_tensor_of_any_size_is_the_formula(
    shape: tuple[int, int], dora: bool, bench: Bench
) -> None:
    base = {f"{MATRIX}.weight": np.random.default_rng(0).normal(size=shape)}
    adapter = factors(MATRIX, shape, rank=4, magnitude=dora)
    bench.lay(base, adapter, llama_config(1), settings=adapter_config(use_dora=dora))
    right = exact(base, adapter, MATRIX, 6 / 4)
    assert relative_error(bench.merged()[f"{MATRIX}.weight"], right) < SLACK


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_embedding_of_several_spans_is_the_formula(dora: bool, bench: Bench) -> None:
    base = {f"{EMBEDDING}.weight": np.random.default_rng(0).normal(size=(9001, 70))}
    base |= {f"{MATRIX}.weight": np.zeros((2, 2))}
    adapter = factors(EMBEDDING, (70, 9001), rank=40, magnitude=dora, embedding=True)
    bench.lay(base, adapter, llama_config(1), settings=adapter_config(r=40, use_dora=dora))
    right = exact(base, adapter, EMBEDDING, 6 / 40, transposed=True)
    assert relative_error(bench.merged()[f"{EMBEDDING}.weight"], right) < SLACK


def test_weight_may_vary_over_the_model_and_zero_copies(bench: Bench) -> None:
    base, adapter = llama_tensors(dtype="F64"), of_modules(MATRIX, OTHER)
    recipe = RECIPE.replace("./adapter}", "./adapter, weight: [0, 0.5]}")
    bench.lay(base, adapter, llama_config(), recipe=recipe)
    found = bench.merged()
    assert found[f"{MATRIX}.weight"].tobytes() == base[f"{MATRIX}.weight"].tobytes()
    right = exact(base, adapter, OTHER, 6 / 4, share=0.5)
    assert relative_error(found[f"{OTHER}.weight"], right) < SLACK
    plan = api.plan(bench.recipe)
    assert [t.spec.name for t in plan.tensors if not t.is_copied] == [f"{OTHER}.weight"]


@pytest.mark.parametrize("share", [1.0, 0.25])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_module_that_was_saved_takes_the_place_of_the_models_in_its_dtype(
    dtype: str, share: float, bench: Bench
) -> None:
    base = llama_tensors(dtype="BF16")
    norm = np.linspace(1, 2, 8).astype(NUMPY_DTYPES[dtype])
    adapter = of_modules(MATRIX) | {f"{PREFIX}model.norm.modules_to_save.weight": norm}
    recipe = RECIPE.replace("./adapter}", f"./adapter, weight: {share}}}")
    bench.lay(base, adapter, llama_config(), recipe=recipe)
    found = bench.merged()["model.norm.weight"]
    assert found.dtype == base["model.norm.weight"].dtype
    right = (1 - share) * float64(base["model.norm.weight"]) + share * float64(norm)
    assert_rounded_once(found, right, SLACK)
    assert (found.tobytes() == norm.tobytes()) is (share == 1 and dtype == "BF16")


def test_factors_are_added_to_a_base_layer_that_was_saved_as_well(bench: Bench) -> None:
    base = llama_tensors(dtype="F64")
    own = {f"{MATRIX}.weight": np.random.default_rng(9).normal(size=(8, 8))}
    adapter = of_modules(MATRIX)
    saved = {f"{PREFIX}{MATRIX}.base_layer.weight": own[f"{MATRIX}.weight"]}
    recipe = RECIPE.replace("./adapter}", "./adapter, weight: 0.5}")
    bench.lay(base, adapter | saved, llama_config(), recipe=recipe)
    right = 0.5 * base[f"{MATRIX}.weight"] + 0.5 * exact(own, adapter, MATRIX, 6 / 4)
    assert relative_error(bench.merged()[f"{MATRIX}.weight"], right) < SLACK


def test_zero_row_without_a_magnitude_stays_zero(bench: Bench) -> None:
    base, adapter = llama_tensors(), of_modules(MATRIX, magnitude=True)
    base[f"{MATRIX}.weight"][3] = 0
    adapter[f"{PREFIX}{MATRIX}.lora_B.weight"][3] = 0
    adapter[f"{PREFIX}{MATRIX}.lora_magnitude_vector"][3] = 0
    bench.lay(base, adapter, llama_config(), settings=adapter_config(use_dora=True))
    found = bench.merged()[f"{MATRIX}.weight"]
    assert not found[3].any()
    assert found[2].any()


@pytest.mark.parametrize("inner", ["", "model."])
@pytest.mark.parametrize("outer", ["", "model."])
def test_names_are_found_with_and_without_the_inner_models(
    inner: str, outer: str, bench: Bench
) -> None:
    base = {
        name.replace("model.", inner) if name.startswith("model.") else name: tensor
        for name, tensor in llama_tensors(dtype="F64").items()
    }
    adapter = {
        name.replace(f"{PREFIX}model.", f"{PREFIX}{outer}"): tensor
        for name, tensor in of_modules(MATRIX, EMBEDDING).items()
    }
    bench.lay(base, adapter, llama_config())
    found = bench.merged()
    for module in (MATRIX, EMBEDDING):
        name = f"{module}.weight".replace("model.", inner)
        assert found[name].tobytes() != base[name].tobytes()


def test_bytes_are_the_same_for_any_threads_budget_and_arithmetic(
    bench: Bench, run_cli: RunCli
) -> None:
    base = llama_tensors(3, hidden=640, vocab=900)
    shapes = {"self_attn.q_proj": (640, 640), "mlp.down_proj": (640, 1280)}
    adapter: Tensors = {}
    for layer in range(3):
        for name, shape in shapes.items():
            module = f"model.layers.{layer}.{name}"
            adapter |= factors(module, shape, rank=5, magnitude=True, seed=layer)
    adapter |= factors(EMBEDDING, (640, 900), rank=5, magnitude=True, embedding=True)
    bench.lay(base, adapter, llama_config(3), settings=adapter_config(r=5, use_dora=True))
    ways: dict[str, tuple[list[str], dict[str, str]]] = {
        "one": (["--threads", "1"], {}),
        "two": (["--threads", "2"], {}),
        "frugal": (["--threads", "2", "--max-memory", "130MB"], {}),
        "numpy": ([], {"TENSORSURGEON_KERNELS": "numpy"}),
    }
    found = {}
    for way, (options, env) in ways.items():
        folder = bench.folder / way
        done = run_cli("apply", bench.recipe, "-o", folder, *options, env=env)
        assert done.returncode == 0, done.stderr
        found[way] = file_bytes(folder)
    assert all(files == found["one"] for files in found.values())
