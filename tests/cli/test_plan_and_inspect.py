"""`plan` and `inspect`: what they say is what is, and no tensor is read to say it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors

from tensorsurgeon.checkpoint.header import read_header
from tests.cli.checkpoints import (
    TORCH_NAMES,
    Tensors,
    entry,
    llama_config,
    llama_tensors,
    read_config,
    read_tensors,
    shard_bytes,
    sparse_llama,
    tiny_llama,
    write_checkpoint,
)
from tests.cli.conftest import Command, WriteRecipe
from tests.cli.processes import run_under
from tests.conftest import RunCli

GROWN = """\
models:
  a: ./a
  b: ./b
  arc: {slerp: {models: [a, b], t: [{match: "*.mlp.*", value: 0}, 0.5]}}
  grown: {stack: [{model: arc}, {model: b, layers: [1, 2]}]}
result: grown
output: {path: ./out, max_shard_size: 3kB}
"""


@pytest.fixture
def planned(models: Path, recipe: WriteRecipe, command: Command) -> dict[str, Any]:
    """The plan of a recipe of all kinds, as JSON."""
    done = command("plan", recipe(GROWN), "--json")
    assert (done.code, done.err) == (0, "")
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_plan_s_shards_are_those_that_apply_writes_to_the_byte(
    planned: dict[str, Any], models: Path, recipe: WriteRecipe, command: Command
) -> None:
    assert command("apply", recipe(GROWN)).code == 0
    written = sorted((models / "out").glob("*.safetensors"))
    assert planned["shards"] == [{"name": p.name, "bytes": p.stat().st_size} for p in written]
    assert len(written) > 1
    assert planned["bytes_written"] == sum(path.stat().st_size for path in written)
    assert planned["config"] == read_config(models / "out")


def test_plan_s_tensors_lie_where_apply_writes_them(
    planned: dict[str, Any], models: Path, recipe: WriteRecipe, command: Command
) -> None:
    assert command("apply", recipe(GROWN)).code == 0
    found = [
        {
            "name": tensor.spec.name,
            "dtype": tensor.spec.dtype.value,
            "shape": list(tensor.spec.shape),
            "shard": path.name,
            "offset": tensor.offset,
            "bytes": tensor.spec.nbytes,
        }
        for path in sorted((models / "out").glob("*.safetensors"))
        for tensor in read_header(path).values()
    ]
    assert [{key: tensor[key] for key in found[0]} for tensor in planned["tensors"]] == found
    assert planned["parameters"] == sum(np.prod(tensor["shape"]) for tensor in planned["tensors"])


def test_plan_tells_where_each_tensor_comes_from(planned: dict[str, Any]) -> None:
    tensors = {tensor["name"]: tensor for tensor in planned["tensors"]}
    for name, copied, expression, passes in (
        ("model.layers.0.mlp.up_proj.weight", True, "a:model.layers.0.mlp.up_proj.weight", 1),
        (
            "model.norm.weight",
            True,
            "b:model.norm.weight",
            1,
        ),
        (
            "model.layers.1.self_attn.q_proj.weight",
            False,
            "slerp(a:model.layers.1.self_attn.q_proj.weight, "
            "b:model.layers.1.self_attn.q_proj.weight, t=0.5)",
            4,
        ),
        ("model.layers.2.mlp.up_proj.weight", True, "b:model.layers.1.mlp.up_proj.weight", 1),
    ):
        tensor = tensors[name]
        assert (tensor["copied"], tensor["expression"]) == (copied, expression)
        assert tensor["bytes_read"] == passes * tensor["bytes"]
    assert planned["bytes_read"] == sum(tensor["bytes_read"] for tensor in tensors.values())


def test_plan_s_layer_map_names_sources_and_seams(planned: dict[str, Any], models: Path) -> None:
    def layer(index: int, *sources: tuple[str, int], seam: bool = False) -> dict[str, Any]:
        listed = [{"source": source, "layer": layer} for source, layer in sources]
        return {"layer": index, "sources": listed, "new": False, "seam": seam}

    assert planned["layer_map"] == [
        layer(0, ("a", 0), ("b", 0)),
        layer(1, ("a", 1), ("b", 1)),
        layer(2, ("b", 1), seam=True),
    ]
    assert planned["sources"] == {"a": str(models / "a"), "b": str(models / "b")}
    assert planned["output"] == str(models / "out")


def test_keys_of_the_json_plan_are_these(planned: dict[str, Any]) -> None:
    assert list(planned) == [
        "recipe",
        "sources",
        "output",
        "push",
        "push_only",
        "parameters",
        "repos",
        "fetched",
        "cache_free",
        "streams",
        "spool_if_streamed",
        "bytes_read",
        "bytes_written",
        "disk_free",
        "threads",
        "memory",
        "layer_map",
        "shards",
        "tensors",
        "config",
        "other_files",
        "notes",
    ]
    assert isinstance(planned["disk_free"], int)
    assert planned["threads"] >= 1
    assert planned["memory"] > 10**7


def test_plan_for_people_says_the_same(
    planned: dict[str, Any], models: Path, recipe: WriteRecipe, command: Command
) -> None:
    done = command("plan", recipe(GROWN), "--threads", "1")
    assert (done.code, done.err) == (0, "")
    lines = dict(
        re.split(" {2,}", line, maxsplit=1) for line in done.out.split("\n\n")[0].split("\n")
    )
    copied = sum(tensor["copied"] for tensor in planned["tensors"])
    total = len(planned["tensors"])
    assert lines["source a"] == str(models / "a")
    assert lines["output"] == str(models / "out")
    assert lines["tensors"] == f"{total}: {copied} copied, {total - copied} computed"
    assert lines["parameters"] == f"{planned['parameters']:,}"
    assert re.fullmatch(r"[\d.]+ kB of .* free", lines["writes"])
    assert re.fullmatch(r"at most .* MB with 1 thread", lines["memory"])
    assert done.out.endswith("layer map: 3 layers\n  0-1  a[0-1] + b[0-1]\n  2    b[1]  (seam)\n")


def test_plan_without_an_output_and_over_an_old_one_is_made_with_a_word(
    models: Path, recipe: WriteRecipe, command: Command
) -> None:
    done = command("plan", recipe("models: {a: ./a}\nresult: a\n"))
    assert done.code == 0
    assert "not named yet: give it with -o" in done.out
    done = command("plan", recipe(GROWN), "-o", models / "b" / ".." / "a2")
    assert (done.code, done.err) == (0, "")
    tiny_llama(models / "out")
    done = command("plan", recipe(GROWN))
    assert done.code == 0
    assert done.err == f"note: {models / 'out'} is already there: apply needs --overwrite\n"


def test_plan_says_in_which_settings_the_models_differ(
    models: Path, recipe: WriteRecipe, command: Command
) -> None:
    config = read_config(models / "b") | {"rope_theta": 1e6, "dtype": "float32"}
    (models / "b" / "config.json").write_text(json.dumps(config))
    done = command("plan", recipe(GROWN))
    said = (
        "note: config.json: rope_theta is None in '{}' and 1000000.0 in 'b'; the first is written"
    )
    assert done.out.splitlines()[-2:] == [said.format("a"), said.format("slerp")]


@pytest.mark.parametrize("flag", ["--json", "--threads=1"])
def test_plan_imports_neither_torch_nor_numpy(
    flag: str, models: Path, recipe: WriteRecipe, run_cli: RunCli
) -> None:
    done = run_cli("plan", recipe(GROWN), flag, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0
    imported = re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE)
    assert "tensorsurgeon.plan.planner" in imported
    roots = {name.partition(".")[0] for name in imported}
    assert roots.isdisjoint({"torch", "numpy", "ml_dtypes", "safetensors", "transformers"})


@pytest.mark.parametrize("arguments", [("plan", "recipe.yaml"), ("inspect", "a")])
def test_headers_are_read_and_no_tensor(
    arguments: tuple[str, str], tmp_path: Path, recipe: WriteRecipe
) -> None:
    sparse_llama(tmp_path / "a", 10**9)
    recipe("models: {a: ./a}\nresult: {linear: {models: [a, a], weights: [1, 2]}}\n")
    trace = tmp_path / "trace"
    calls = "read,pread64,readv,preadv,preadv2,mmap,copy_file_range,sendfile"
    strace = ("strace", "-f", "-y", "--seccomp-bpf", "-o", str(trace), "-e", f"trace={calls}")
    done = run_under(strace, arguments[0], tmp_path / arguments[1])
    assert done.returncode == 0, done.stderr
    reads = [line for line in trace.read_text().splitlines() if ".safetensors>" in line]
    assert reads
    assert [line for line in reads if " read(" not in line] == []
    # Files are read through a buffer, so that a little more than the header may come along.
    assert sum(int(line.rpartition(" = ")[2]) for line in reads) < 100_000


def test_inspect_lists_every_tensor_and_what_they_sum_up_to(
    tmp_path: Path, command: Command
) -> None:
    integers: Tensors = {"model.positions": np.arange(5), "model.scale": np.full((), 2, np.float32)}
    folder = write_checkpoint(tmp_path / "a", llama_tensors() | integers, shards=2)
    done = command("inspect", folder)
    assert (done.code, done.err) == (0, "")
    table, summary = done.out.split("\n\n")
    head, *rows = (line.split() for line in table.split("\n"))
    assert head == ["tensor", "dtype", "shape", "size", "file"]
    listed = {row[0]: row[1:] for row in rows}
    assert len(rows) == len(listed) == 23
    shard = "model-0000{}-of-00002.safetensors"
    assert listed["model.embed_tokens.weight"] == ["BF16", "16x8", "256", "B", shard.format(1)]
    assert listed["model.positions"] == ["I64", "5", "40", "B", shard.format(2)]
    assert listed["model.scale"] == ["F32", "scalar", "4", "B", shard.format(2)]
    assert summary == (
        "llama, 2 layers, 23 tensors in 2 files, 3.2 kB\n"
        "1,582 parameters: 1,576 BF16, 5 I64, 1 F32\n"
    )


@pytest.mark.parametrize("shards", [1, 3])
def test_inspect_gives_programs_the_place_of_every_tensor(
    shards: int, tmp_path: Path, command: Command
) -> None:
    folder = tiny_llama(tmp_path / "a", shards=shards)
    done = command("inspect", folder, "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    tensors = found.pop("tensors")
    assert found == {
        "path": str(folder),
        "notes": [],
        "family": "llama",
        "layers": 2,
        "parameters": 1576,
        "parameters_by_dtype": {"BF16": 1576},
        "bytes": 3152,
        "files": shards,
    }
    for name, expected in llama_tensors().items():
        (tensor,) = (tensor for tensor in tensors if tensor["name"] == name)
        data = (folder / tensor["file"]).read_bytes()[tensor["offset"] :][: tensor["bytes"]]
        assert (tensor["dtype"], tensor["shape"]) == ("BF16", list(expected.shape))
        assert data == expected.tobytes()


def test_inspect_lists_what_no_method_could_compute_on(tmp_path: Path, command: Command) -> None:
    folder = tiny_llama(tmp_path / "a")
    header = {
        "f4": entry("F4", [2, 3], 0, 3),
        "f6": entry("F6_E3M2", [4], 3, 6),
        "complex": entry("C64", [0], 6, 6),
    }
    (folder / "model.safetensors").write_bytes(shard_bytes(header, b"abcdef"))
    done = command("inspect", folder)
    assert done.code == 0
    assert "6 F4, 4 F6_E3M2, 0 C64" in done.out
    assert done.err.startswith(f"note: {folder}: config.json says 2 layers, which no tensor names")


@pytest.mark.parametrize("dtype", TORCH_NAMES)
def test_planned_dtype_is_what_is_written(
    dtype: str, models: Path, recipe: WriteRecipe, command: Command
) -> None:
    output = f"{{path: ./out, dtype: {TORCH_NAMES[dtype]}}}"
    path = recipe(f"models: {{a: ./a}}\nresult: a\noutput: {output}\n")
    planned = json.loads(command("plan", path, "--json").out)
    assert {tensor["dtype"] for tensor in planned["tensors"]} == {dtype}
    assert command("apply", path).code == 0
    with safetensors.safe_open(models / "out" / "model.safetensors", "np") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {dtype}  # noqa: SIM118
    assert read_config(models / "out")["dtype"] == TORCH_NAMES[dtype]


def test_tensors_that_a_stack_takes_twice_are_read_once(
    tmp_path: Path, recipe: WriteRecipe, command: Command
) -> None:
    """Those of whole pages, which all begin on one; others may be read twice."""
    tensors = llama_tensors(2, hidden=64)
    write_checkpoint(tmp_path / "a", tensors, llama_config(2, hidden=64))
    path = recipe("""\
        models: {a: ./a}
        result: {stack: [{model: a}, {model: a, layers: [0, 2]}]}
        output: {path: ./out}
        """)
    planned = json.loads(command("plan", path, "--json").out)
    once = sum(values.nbytes for values in tensors.values())
    alone = sum(tensor["bytes_read"] for tensor in planned["tensors"])
    small = sum(values.nbytes for values in tensors.values() if values.nbytes % 4096)
    assert once <= planned["bytes_read"] <= once + small < alone
    done = command("apply", path)
    assert done.code == 0, done.err
    written = read_tensors(tmp_path / "out")
    for name, values in written.items():
        layer = int(name.split(".")[2]) if ".layers." in name else 0
        source = name.replace(f".layers.{layer}.", f".layers.{layer % 2}.")
        assert values.tobytes() == tensors[source].tobytes()
