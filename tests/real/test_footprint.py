"""What a run takes: its peak memory as the kernel counts it, and the modules it imports."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, RunCli
from tests.real.conftest import write_recipe
from tests.real.test_numbers import LINEAR, SLERP

DEPTH_UP_SCALE = {"depth_up_scale": {"model": "base", "remove": 8}}
MB = 10**6


def peak_of_apply(recipe: Path, *flags: str) -> int:
    """Peak resident memory in bytes of one `tensorsurgeon apply`."""
    launcher = [sys.executable, "-I", "-S", ROOT / "tests" / "real" / "peak.py"]
    engine = [sys.executable, "-m", "tensorsurgeon", "apply", recipe, "-q", *flags]
    done = subprocess.run([*launcher, *engine], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_depth_up_scaling_stays_under_60_mb(
    smollm2: Path, smollm2_tuned: Path, scratch: Path
) -> None:
    recipe = write_recipe(DEPTH_UP_SCALE, smollm2, smollm2_tuned, scratch / "grown")
    assert peak_of_apply(recipe) < 60 * MB


@pytest.mark.parametrize("expression", [LINEAR, SLERP], ids=["linear", "slerp"])
def test_two_models_of_269_mb_are_merged_in_300_mb(
    expression: dict[str, Any], smollm2: Path, smollm2_tuned: Path, scratch: Path
) -> None:
    recipe = write_recipe(expression, smollm2, smollm2_tuned, scratch / "merged")
    assert peak_of_apply(recipe) < 300 * MB


@pytest.mark.parametrize("budget", [90, 130])
def test_memory_budget_is_kept_whatever_the_threads_asked_for(
    budget: int, smollm2: Path, smollm2_tuned: Path, scratch: Path
) -> None:
    recipe = write_recipe(SLERP, smollm2, smollm2_tuned, scratch / "merged")
    flags = ("--max-memory", f"{budget}MB", "--threads", "7")
    assert peak_of_apply(recipe, *flags) <= budget * MB


def test_memory_budget_that_cannot_be_kept_is_refused_before_anything_is_written(
    smollm2: Path, smollm2_tuned: Path, scratch: Path, run_cli: RunCli
) -> None:
    recipe = write_recipe(SLERP, smollm2, smollm2_tuned, scratch / "merged")
    done = run_cli("apply", recipe, "--max-memory", "20MB")
    assert done.returncode != 0
    assert "20 MB" in done.stderr
    assert list(scratch.iterdir()) == [recipe]


@pytest.mark.parametrize("command", ["plan", "apply"])
def test_work_without_arithmetic_imports_neither_torch_nor_numpy(
    command: str, smollm2: Path, smollm2_tuned: Path, scratch: Path, run_cli: RunCli
) -> None:
    recipe = write_recipe(DEPTH_UP_SCALE, smollm2, smollm2_tuned, scratch / "grown")
    done = run_cli(command, recipe, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0, done.stderr
    # Each line of the profile ends in `| name.of.module`.
    profile = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in profile}
    assert "tensorsurgeon" in imported
    assert imported.isdisjoint({"torch", "numpy"})
