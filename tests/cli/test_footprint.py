"""Same bytes for any number of threads and any budget, and budgets that are kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tensorsurgeon import api
from tests.cli.checkpoints import (
    file_bytes,
    llama_config,
    odd_tensors,
    sparse_llama,
    tiny_llama,
    write_checkpoint,
)
from tests.cli.conftest import WriteRecipe
from tests.cli.processes import ENGINE
from tests.conftest import ROOT

EXPRESSIONS = {
    "copied": "{stack: [{model: b}, {model: a}]}",
    "linear": "{linear: {models: [a, b], weights: [0.3, 0.7]}}",
    "slerp": "{slerp: {models: [a, b], t: 0.3}}",
    "nested": "{slerp: {models: [{linear: {models: [a, b, a]}}, "
    "{slerp: {models: [b, {linear: {models: [b, a]}}], t: 0.1}}], t: 0.6}}",
}


@pytest.mark.parametrize("dtype", ["BF16", "F64", "F8_E5M2"])
@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_bytes_are_the_same_for_any_threads_and_any_budget(
    expression: str, dtype: str, tmp_path: Path, recipe: WriteRecipe
) -> None:
    for seed, name in enumerate("ab"):
        write_checkpoint(tmp_path / name, odd_tensors(dtype=dtype, seed=seed), llama_config(1))
    path = recipe(f"models: {{a: ./a, b: ./b}}\nresult: {expression}\n")
    plan = api.plan(path, output=tmp_path / "expected")
    api.apply(plan, threads=1)
    expected = file_bytes(tmp_path / "expected")
    for threads in (2, 7):
        other = api.plan(path, output=tmp_path / f"threads-{threads}")
        assert file_bytes(api.apply(other, threads=threads).path) == expected
    for threads in (1, 3):
        other = api.plan(path, output=tmp_path / f"budget-{threads}")
        result = api.apply(other, threads=7, max_memory=api.memory_for(plan, threads))
        assert result.threads == threads
        assert file_bytes(result.path) == expected


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64", "F8_E4M3"])
def test_bytes_are_the_same_without_the_compiled_arithmetic(
    dtype: str, tmp_path: Path, recipe: WriteRecipe
) -> None:
    for seed, name in enumerate("ab"):
        write_checkpoint(tmp_path / name, odd_tensors(dtype=dtype, seed=seed), llama_config(1))
    path = recipe(f"models: {{a: ./a, b: ./b}}\nresult: {EXPRESSIONS['nested']}\n")
    found = []
    for kernels in ("compiled", "numpy"):
        out = tmp_path / kernels
        done = subprocess.run(
            [*ENGINE, "apply", str(path), "-o", str(out)],
            env=os.environ | {"TENSORSURGEON_KERNELS": kernels},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ("ran in numpy" in done.stderr) == (kernels == "numpy")
        found.append(file_bytes(out))
    assert found[0] == found[1]


def peak_of_apply(*arguments: str | Path) -> int:
    """Peak resident memory in bytes of one `tensorsurgeon apply`, as the kernel counts it."""
    launcher = [sys.executable, "-I", "-S", str(ROOT / "tests" / "real" / "peak.py")]
    engine = [*ENGINE, "apply", *map(str, arguments), "-q"]
    done = subprocess.run([*launcher, *engine], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("expression", "dtype"),
    [
        ("copied", "bfloat16"),
        ("copied", "float8_e4m3fn"),
        ("linear", "bfloat16"),
        ("slerp", "float64"),
        ("nested", "float8_e5m2"),
    ],
)
def test_smallest_budget_of_so_many_threads_is_kept(
    expression: str, dtype: str, threads: int, tmp_path: Path, recipe: WriteRecipe
) -> None:
    for name in "ab":
        sparse_llama(tmp_path / name, 3_000_000, depth=4)
    path = recipe(f"""\
        models: {{a: ./a, b: ./b}}
        result: {EXPRESSIONS[expression]}
        output: {{path: ./out, dtype: {dtype}}}
        """)
    budget = api.memory_for(api.plan(path), threads)
    peak = peak_of_apply(path, "--threads", str(threads), "--max-memory", str(budget))
    assert peak <= budget


@pytest.mark.parametrize("result", ["a", "{linear: {models: [a, b]}}"], ids=["copied", "computed"])
def test_budget_of_a_model_of_thousands_of_tensors_is_kept(
    result: str, tmp_path: Path, recipe: WriteRecipe
) -> None:
    for name in "ab":
        tiny_llama(tmp_path / name, 500)
    used = "{a: ./a}" if result == "a" else "{a: ./a, b: ./b}"
    path = recipe(f"models: {used}\nresult: {result}\noutput: {{path: ./out}}\n")
    budget = api.memory_for(api.plan(path), 1)
    peak = peak_of_apply(path, "--max-memory", str(budget))
    assert peak <= budget
