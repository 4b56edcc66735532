"""`make demo` as a visitor runs it."""

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_demo_shows_a_grown_model_that_is_a_few_tenths_of_a_nat_worse(smollm2: Path) -> None:
    demo = [sys.executable, ROOT / "recipes" / "demo.py"]
    done = subprocess.run(demo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    base, grown = map(float, re.findall(r"([\d.]+) nats per token", done.stdout))
    assert 0.1 < grown - base < 0.6
    assert done.stdout.count("... Paris") == 2
