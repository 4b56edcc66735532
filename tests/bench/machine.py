"""What the benchmark ran on: hardware, kernel, file system, versions."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from tests.bench.jobs import PEER_BIN, ROOT

PEER_PACKAGES = ("mergekit", "torch", "transformers")


def describe(folder: Path) -> dict[str, str]:
    """The machine, and the file system that the folder is on."""
    cpu = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory('MemTotal') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "filesystem": _filesystem(folder.resolve()),
    }


def memory(field: str) -> int:
    """A field of /proc/meminfo in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def versions() -> dict[str, str]:
    """What runs here and, where it is installed, in the peer's environment."""
    ours = {
        "tensorsurgeon": _ask(sys.executable, "import tensorsurgeon as t; print(t.__version__)"),
        "python": platform.python_version(),
        "numpy": importlib.metadata.version("numpy"),
    }
    python = PEER_BIN / "python"
    if not python.exists():
        return ours
    question = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"
    return ours | {name: _ask(str(python), question, name) for name in PEER_PACKAGES}


def _ask(python: str, program: str, *arguments: str) -> str:
    """The line that a Python program prints, run from the checkout by another interpreter."""
    command = [python, "-c", program, *arguments]
    return subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def _filesystem(folder: Path) -> str:
    """Type of the innermost mount that holds the folder."""
    innermost, kind = Path("/"), "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        point = Path(mount.split()[4])
        if folder.is_relative_to(point) and point.is_relative_to(innermost):
            innermost, kind = point, source.split()[0]
    return kind
