"""Models that cannot be merged or stacked: refused with both models, both sizes and the tensor."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.checkpoints import (
    Tensors,
    entry,
    llama_config,
    llama_tensors,
    read_tensors,
    shard_bytes,
    tiny_llama,
    write_checkpoint,
)
from tests.cli.conftest import Command, Refused, WriteRecipe
from tests.cli.processes import run_under

ARCHITECTURE, CHECKPOINT, PLAN = 4, 5, 6
"""Exit codes: what a model is, a source, the plan."""

MERGE = "{linear: {models: [a, other]}}"
STACK = "{stack: [{model: a}, {model: other}]}"


def of_another_family(folder: Path) -> Path:
    return write_checkpoint(folder, llama_tensors(), llama_config() | {"model_type": "qwen2"})


def with_tied_head(folder: Path) -> Path:
    tensors = llama_tensors()
    del tensors["lm_head.weight"]
    return write_checkpoint(folder, tensors, llama_config() | {"tie_word_embeddings": True})


def with_one_tensor_more(folder: Path) -> Path:
    extra = {"model.layers.1.self_attn.q_proj.bias": np.zeros(8, np.float32)}
    return write_checkpoint(folder, llama_tensors() | extra)


MISFITS: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "depth": (
        MERGE,
        lambda folder: tiny_llama(folder, 3),
        "'a' has 2 layers, 'other' has 3\n  fix: bring them to one depth with 'stack' first",
    ),
    "width": (
        MERGE,
        lambda folder: tiny_llama(folder, hidden=16),
        "tensor 'model.embed_tokens.weight' is [16, 8] in 'a' and [16, 16] in 'other'",
    ),
    "width of layers": (
        STACK,
        lambda folder: tiny_llama(folder, hidden=16),
        "'model.layers.0.input_layernorm.weight' is [16] in 'other', but "
        "'model.layers.0.input_layernorm.weight' is [8] in 'a'",
    ),
    "vocabulary": (
        MERGE,
        lambda folder: tiny_llama(folder, vocab=24),
        "tensor 'model.embed_tokens.weight' is [16, 8] in 'a' and [24, 8] in 'other': "
        "their vocabularies differ in size\n  fix: merge models with one vocabulary",
    ),
    "vocabulary of embedding and head": (STACK, lambda folder: tiny_llama(folder, vocab=24), "24"),
    "family": (MERGE, of_another_family, "'a' is of family llama, 'other' of qwen2\n  fix: "),
    "family of layers": (
        STACK,
        of_another_family,
        "layers of 'other' (qwen2, model.layers.) do not fit 'a' (llama, model.layers.)\n  fix: ",
    ),
    "output head": (
        MERGE,
        with_tied_head,
        "tensor 'lm_head.weight' is in 'a' and not in 'other'\n  fix: one model ties its output",
    ),
    "output head of a stack": (STACK, with_tied_head, "lm_head"),
    "tensors": (
        MERGE,
        with_one_tensor_more,
        "tensor 'model.layers.1.self_attn.q_proj.bias' is in 'other' and not in 'a'",
    ),
}


@pytest.mark.parametrize(("expression", "make", "problem"), MISFITS.values(), ids=MISFITS.keys())
def test_models_that_differ_are_refused_with_both_and_the_difference(
    expression: str,
    make: Callable[[Path], Path],
    problem: str,
    models: Path,
    recipe: WriteRecipe,
    refused: Refused,
) -> None:
    make(models / "other")
    path = recipe(f"""\
        models: {{a: ./a, other: ./other}}
        result: {expression}
        output: {{path: ./out}}
        """)
    message = refused("apply", path, code=ARCHITECTURE)
    assert message.startswith(f"{path}:2:10: ")
    assert problem in message


def with_positions(seed: int) -> Tensors:
    """A model with a tensor of integers in each layer, that differ from seed to seed."""
    tensors = llama_tensors(seed=seed)
    for layer in range(2):
        name = f"model.layers.{layer}.self_attn.positions"
        tensors[name] = np.arange(4, dtype=np.int64) + seed
    return tensors


@pytest.fixture
def with_integers(tmp_path: Path) -> Path:
    """A folder with two such models, `a` and `b`."""
    for seed, name in enumerate("ab"):
        write_checkpoint(tmp_path / name, with_positions(seed))
    return tmp_path


INTEGERS = "{match: '*.positions', value: %g}"
GIVEN_WHOLE = {
    "linear": f"weights: [[{INTEGERS % 0}, 0.5], [{INTEGERS % 1}, 0.5]]",
    "slerp": f"t: [{INTEGERS % 1}, 0.5]",
}


@pytest.mark.usefixtures("with_integers")
@pytest.mark.parametrize(
    "operator", ["linear: {models: [a, b]}", "slerp: {models: [a, b], t: 0.5}"]
)
def test_integers_are_not_averaged(operator: str, recipe: WriteRecipe, refused: Refused) -> None:
    path = recipe(f"""\
        models: {{a: ./a, b: ./b}}
        result: {{{operator}}}
        output: {{path: ./out}}
        """)
    message = refused("apply", path, code=PLAN)
    name = "model.layers.0.self_attn.positions"
    assert f"cannot compute on tensor '{name}' of dtype I64\n  fix: give it to one" in message


@pytest.mark.parametrize("operator", ["linear", "slerp"])
def test_integers_that_a_rule_gives_to_one_model_are_copied_from_it(
    operator: str, with_integers: Path, recipe: WriteRecipe, command: Command
) -> None:
    path = recipe(f"""\
        models: {{a: ./a, b: ./b}}
        result: {{{operator}: {{models: [a, b], {GIVEN_WHOLE[operator]}}}}}
        output: {{path: ./out, dtype: float32}}
        """)
    assert command("apply", path).code == 0
    positions = read_tensors(with_integers / "out")["model.layers.1.self_attn.positions"]
    assert positions.dtype == np.int64
    assert positions.tolist() == [1, 2, 3, 4]


def test_integers_of_a_model_merged_with_itself_are_copied(
    with_integers: Path, recipe: WriteRecipe, command: Command
) -> None:
    path = recipe("""\
        models: {a: ./a}
        result: {slerp: {models: [a, {linear: {models: [a, a]}}], t: 0.5}}
        output: {path: ./out}
        """)
    assert command("apply", path).code == 0
    positions = read_tensors(with_integers / "out")["model.layers.0.self_attn.positions"]
    assert positions.tolist() == [0, 1, 2, 3]


ODD_NAMES = {
    "a layer too many": (
        ["model.layers.2.extra"],
        "config.json says 2 layers, which no tensor names number\n"
        "  fix: the names have: 'model.layers.' 0 to 2",
    ),
    "two patterns that fit": (
        ["vision.layers.0.w", "vision.layers.1.w"],
        "several name patterns fit the config's 2 layers: ",
    ),
    "a layer numbered twice": (
        ["model.layers.01.mlp.up_proj.weight"],
        "model.layers.01.mlp.up_proj.weight",
    ),
    "a layer in other digits": (
        ["model.layers.\u0661.mlp.up_proj.weight"],
        "model.layers.\u0661.mlp.up_proj.weight",
    ),
    "an index of 5000 digits": ([f"model.layers.{'9' * 5000}.w"], "model.layers."),
}


@pytest.mark.parametrize(("names", "problem"), ODD_NAMES.values(), ids=ODD_NAMES.keys())
def test_tensor_that_no_layer_accounts_for_is_refused(
    names: list[str], problem: str, tmp_path: Path, recipe: WriteRecipe, refused: Refused
) -> None:
    write_checkpoint(
        tmp_path / "a", llama_tensors() | {name: np.zeros(1, np.float32) for name in names}
    )
    path = recipe("""\
        models: {a: ./a}
        result: {stack: [{model: a}]}
        output: {path: ./out}
        """)
    assert problem in refused("apply", path, code=ARCHITECTURE)


def test_recipe_decides_where_two_name_patterns_fit(
    tmp_path: Path, recipe: WriteRecipe, command: Command
) -> None:
    vision = {f"vision.layers.{layer}.w": np.full(1, layer, np.float32) for layer in range(2)}
    write_checkpoint(tmp_path / "a", llama_tensors() | vision)
    path = recipe("""\
        models: {a: {source: {path: ./a, layers: model.layers}}}
        result: {stack: [{model: a}, {model: a}]}
        output: {path: ./out}
        """)
    assert command("apply", path).code == 0
    written = read_tensors(tmp_path / "out")
    assert "model.layers.3.mlp.up_proj.weight" in written
    assert sorted(name for name in written if "vision" in name) == sorted(vision)


CONFIGS = {
    "no depth": ({}, "config.json does not say how many layers the model has\n  fix: it is usual"),
    "a depth in words": ({"num_hidden_layers": "2"}, "config.json does not say how many layers"),
    "a depth of truth": ({"num_hidden_layers": True}, "config.json does not say how many layers"),
    "a negative depth": ({"num_hidden_layers": -2}, "config.json does not say how many layers"),
    "too few layers": ({"num_hidden_layers": 1}, "config.json says 1 layers, which no tensor"),
}


@pytest.mark.parametrize(("config", "problem"), CONFIGS.values(), ids=CONFIGS.keys())
def test_config_whose_depth_is_not_that_of_the_tensors_is_refused(
    config: dict[str, object],
    problem: str,
    tmp_path: Path,
    recipe: WriteRecipe,
    refused: Refused,
) -> None:
    folder = tiny_llama(tmp_path / "a")
    (folder / "config.json").write_text(json.dumps(config))
    path = recipe("models: {a: ./a}\nresult: a\noutput: {path: ./out}\n")
    message = refused("apply", path, code=ARCHITECTURE)
    assert message.startswith(f"{folder}: {problem}")


def test_depth_that_no_memory_could_count_is_refused(tmp_path: Path, recipe: WriteRecipe) -> None:
    folder = tiny_llama(tmp_path / "a")
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 10**15}))
    path = recipe("models: {a: ./a}\nresult: a\noutput: {path: ./out}\n")
    done = run_under(("prlimit", "--as=1000000000"), "plan", path)
    assert done.returncode == ARCHITECTURE
    assert "config.json says 1000000000000000 layers, which no tensor names number" in done.stderr


def test_model_without_tensors_is_refused(
    tmp_path: Path, recipe: WriteRecipe, refused: Refused
) -> None:
    folder = tiny_llama(tmp_path / "a")
    (folder / "model.safetensors").write_bytes(shard_bytes({}))
    path = recipe("models: {a: ./a}\nresult: a\noutput: {path: ./out}\n")
    assert "the names have: no index at all" in refused("apply", path, code=ARCHITECTURE)


def test_tensor_that_no_shard_may_hold_is_named(
    models: Path, recipe: WriteRecipe, refused: Refused
) -> None:
    path = recipe("models: {a: ./a}\nresult: a\noutput: {path: ./out, max_shard_size: 200}\n")
    assert refused("apply", path, code=PLAN) == (
        "tensor 'model.embed_tokens.weight' of 256 B does not fit a shard of 200 B\n"
        "  fix: raise output: max_shard_size\n"
    )


def test_header_of_a_dtype_that_is_not_known_is_refused(
    models: Path, recipe: WriteRecipe, refused: Refused
) -> None:
    shard = models / "a" / "model.safetensors"
    shard.write_bytes(shard_bytes({"w": entry("F12", [2], 0, 3)}, b"abc"))
    path = recipe("models: {a: ./a}\nresult: a\noutput: {path: ./out}\n")
    expected = f"{shard}: tensor 'w': unknown dtype 'F12' (entry at byte 14)\n"
    assert refused("apply", path, code=CHECKPOINT) == expected
