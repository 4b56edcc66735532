"""Headers, indexes, configs and recipes at random: what comes out is a result or one of our errors.

Any other exception is a failure, and so are ten seconds or 200 MB.
"""

import json
import struct
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tensorsurgeon import api
from tensorsurgeon.checkpoint import open_checkpoint
from tensorsurgeon.checkpoint.header import read_header
from tensorsurgeon.checkpoint.index_file import INDEX_NAME
from tensorsurgeon.errors import CheckpointError, RecipeError, TensorSurgeonError
from tensorsurgeon.operators import OPERATORS
from tensorsurgeon.recipe import parse_recipe
from tests.cli.checkpoints import entry, llama_config, read_index, shard_bytes, tiny_llama
from tests.hostile.reading import resident
from tests.hostile.strategies import (
    as_json,
    changed,
    changes,
    entries,
    keys,
    recipe_values,
    values,
    words,
)
from tests.hostile.test_header import read_by_library, read_by_us

fuzz = settings(
    max_examples=300,
    deadline=timedelta(seconds=10),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module", autouse=True)
def _memory_is_bounded() -> Iterator[None]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = resident("VmRSS")
    yield
    assert resident("VmHWM") - before < 200_000_000


def refusal(
    of: type[TensorSurgeonError], step: Callable[..., object], *arguments: object
) -> TensorSurgeonError | None:
    """The error of ours that a step ends with; None if it does what it should."""
    try:
        step(*arguments)
    except of as error:
        found = error
    else:
        return None
    assert len(str(found)) < 10_000
    return found


VALID_HEADER = as_json(
    {
        "__metadata__": {"format": "pt"},
        "a": entry("BF16", [3, 4], 0, 24),
        "b": entry("F64", [], 24, 32),
        "c": entry("F4", [0, 7], 32, 32),
    }
)


def check_header(path: Path, content: bytes) -> None:
    """A file is refused as one of ours, or read as the library reads it."""
    path.write_bytes(content)
    if error := refusal(CheckpointError, read_header, path):
        assert str(error).startswith(f"{path}: ")
    else:
        assert read_by_us(path) == read_by_library(path)


@fuzz
@given(content=st.binary(max_size=200))
@example(content=b"version https://git-lfs.github.com/spec/v1\n")
def test_any_bytes_as_a_file(content: bytes, tmp_path: Path) -> None:
    check_header(tmp_path / "x.safetensors", content)


@fuzz
@given(header=st.binary(max_size=100), data=st.binary(max_size=8), begun=st.booleans())
def test_any_bytes_as_a_header(header: bytes, data: bytes, begun: bool, tmp_path: Path) -> None:
    check_header(tmp_path / "x.safetensors", shard_bytes(b"{" * begun + header, data))


@fuzz
@given(
    header=st.dictionaries(keys, values | entries, max_size=4) | values,
    size=st.integers(0, 40),
    ascii_only=st.booleans(),
)
def test_any_json_as_a_header(header: Any, size: int, ascii_only: bool, tmp_path: Path) -> None:
    text = as_json(header, ascii_only=ascii_only)
    check_header(tmp_path / "x.safetensors", shard_bytes(text, bytes(size)))


@fuzz
@given(changes=changes, size=st.integers(30, 34), length=st.none() | st.integers(0, 2**64 - 1))
def test_changed_header(
    changes: list[tuple[int, int, bytes]], size: int, length: int | None, tmp_path: Path
) -> None:
    content = shard_bytes(changed(VALID_HEADER, changes), bytes(size))
    if length is not None:
        content = struct.pack("<Q", length) + content[8:]
    check_header(tmp_path / "x.safetensors", content)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama in one file and another in three; what a test writes there, it writes anew."""
    root = tmp_path_factory.mktemp("fuzz")
    tiny_llama(root / "sharded", shards=3)
    tiny_llama(root / "single")
    return root


@pytest.fixture
def valid_index(tmp_path: Path) -> dict[str, Any]:
    weight_map = read_index(tiny_llama(tmp_path / "sharded", shards=3))
    return {"metadata": {"total_size": 1}, "weight_map": weight_map}


def check_index(folder: Path, content: bytes) -> None:
    """A folder with this index is refused as one of ours, or every tensor is where it says."""
    (folder / INDEX_NAME).write_bytes(content)
    if error := refusal(CheckpointError, open_checkpoint, folder):
        assert str(error).startswith(str(folder))
    else:
        found = open_checkpoint(folder)
        weight_map = json.loads(content)["weight_map"]
        assert {name: t.path.name for name, t in found.tensors.items()} == weight_map
        assert all(note.isprintable() for note in found.notes)


@fuzz
@given(content=st.binary(max_size=100) | values.map(as_json))
def test_anything_as_an_index(content: bytes, folders: Path) -> None:
    check_index(folders / "sharded", content)


@fuzz
@given(changes=changes)
def test_changed_index(
    changes: list[tuple[int, int, bytes]], folders: Path, valid_index: dict[str, Any]
) -> None:
    check_index(folders / "sharded", changed(as_json(valid_index), changes))


@fuzz
@given(data=st.data(), total_size=values)
def test_index_of_other_values(
    data: st.DataObject, total_size: Any, folders: Path, valid_index: dict[str, Any]
) -> None:
    weight_map = dict(valid_index["weight_map"])
    shards = st.sampled_from(sorted(set(weight_map.values()))) | values
    weight_map |= data.draw(
        st.dictionaries(st.sampled_from(sorted(weight_map)) | keys, shards, max_size=2)
    )
    index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    check_index(folders / "sharded", as_json(index))


def check_config(folders: Path, content: bytes, result: str = "m") -> None:
    """A model with this config can be looked at and planned with, or is refused as one of ours."""
    (folders / "recipe.yaml").write_text(f"models: {{m: ./single}}\nresult: {result}\n")
    (folders / "single" / "config.json").write_bytes(content)
    for step, path in ((api.inspect, "single"), (api.plan, "recipe.yaml")):
        refusal(TensorSurgeonError, step, folders / path)


@fuzz
@given(content=st.binary(max_size=100) | values.map(as_json))
def test_anything_as_a_config(content: bytes, folders: Path) -> None:
    check_config(folders, content)


@fuzz
@given(changes=changes)
def test_changed_config(changes: list[tuple[int, int, bytes]], folders: Path) -> None:
    check_config(folders, changed(as_json(llama_config()), changes))


SETTINGS = (
    *llama_config(),
    "layer_types",
    "max_window_layers",
    "quantization_config",
    "rope_scaling",
    "sliding_window",
    "text_config",
    "torch_dtype",
)
STACK = "{stack: [{model: a, layers: [0, 2]}, {model: a, layers: [0, 2]}]}"


@fuzz
@given(
    new=st.dictionaries(st.sampled_from(SETTINGS), values | st.just(llama_config()), max_size=3),
    inside=st.booleans(),
    grown=st.booleans(),
)
def test_config_of_other_values(
    new: dict[str, Any], inside: bool, grown: bool, folders: Path
) -> None:
    config = llama_config() | new
    result = STACK.replace("a,", "m,") if grown else "m"
    check_config(folders, as_json({"text_config": config} if inside else config), result)


RECIPE = f"""\
models:
  a: ./a
  b: some/repo@main
  c: {{source: {{path: ./c, layers: model.layers}}}}
  grown: {STACK}
  merged:
    slerp:
      models: [grown, {{linear: {{models: [b, c], weights: [0.5, 0.5]}}}}]
      t:
        - {{match: "*.self_attn.*", value: [0, 0.5, 1]}}
        - 0.5
result: merged
output: {{path: ./out, dtype: bfloat16, max_shard_size: 5GB, tokenizer: a}}
seed: 0
"""


def check_recipe(content: bytes) -> None:
    """A text is a recipe, or refused with a place in it."""
    if error := refusal(RecipeError, parse_recipe, content, "r.yaml", OPERATORS):
        assert all(problem.where.startswith("r.yaml") for problem in error.problems)


def test_recipe_that_is_changed_below_is_one() -> None:
    assert parse_recipe(RECIPE.encode(), "r.yaml", OPERATORS)


@fuzz
@given(content=st.binary(max_size=100) | st.text(max_size=100).map(str.encode))
def test_any_text_as_a_recipe(content: bytes) -> None:
    check_recipe(content)


@fuzz
@given(changes=changes)
def test_changed_recipe(changes: list[tuple[int, int, bytes]]) -> None:
    check_recipe(changed(RECIPE.encode(), changes))


@fuzz
@given(models=st.dictionaries(words, recipe_values, max_size=3), result=recipe_values)
def test_recipe_of_other_values(models: dict[str, Any], result: Any) -> None:
    recipe = {"models": {"a": "./a", "b": "./b"} | models, "result": result}
    check_recipe(json.dumps(recipe).encode())
