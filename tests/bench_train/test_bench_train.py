"""The trainer's benchmark works, as far as a machine without a GPU can tell."""

import json
import subprocess
import sys
from pathlib import Path


def test_a_rehearsal_measures_speed_memory_and_forecast(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench_train", "--rehearse", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (row,) = json.loads((tmp_path / "results.json").read_bytes())
    assert row["tokens_per_second"] > 0
    assert row["memory"] > 0
    assert row["forecast"] > 0
    assert row["mfu"] is None
    assert f"| {row['job']} |" in done.stdout
