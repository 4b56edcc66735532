"""The trainer's benchmark works, as far as a machine without a GPU can tell."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench_train.__main__ import is_as_wanted


def test_a_rehearsal_measures_speed_memory_and_forecast(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench_train", "--rehearse", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (row,) = json.loads((tmp_path / "results.json").read_bytes())
    assert row["tokens_per_second"] > 0
    assert row["memory"] > 0
    assert row["forecast"] > 0
    assert row["mfu"] is None
    assert f"| {row['job']} |" in done.stdout


@pytest.mark.parametrize(
    ("mfu", "forecast", "wanted"),
    [(0.45, 90, True), (0.45, 111, False), (0.44, 100, False), (None, 100, False)],
)
def test_bars_are_of_utilisation_and_of_the_forecast(
    mfu: float | None, forecast: int, wanted: bool
) -> None:
    row = {"mfu": mfu, "wanted": 0.45, "forecast": forecast, "memory": 100}
    assert is_as_wanted(row) is wanted
