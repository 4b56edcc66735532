"""Opens a checkpoint's folder, and prints what came of it, the processor's seconds and the memory.

    python tests/hostile/reading.py FOLDER

In a process of its own, whose peak is its own. The memory is what was resident beyond what the
program had taken before it looked at the folder, in bytes.
"""

import json
import sys
import time
from pathlib import Path

from tensorsurgeon.checkpoint import open_checkpoint
from tensorsurgeon.errors import TensorSurgeonError


def resident(which: str) -> int:
    """A line of this process's status, in bytes: `VmRSS` now, or `VmHWM` at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(which))


if __name__ == "__main__":
    before, start = resident("VmRSS"), time.process_time()
    try:
        outcome = f"{len(open_checkpoint(Path(sys.argv[1])).tensors)} tensors"
    except TensorSurgeonError as error:
        outcome = str(error)
    seconds = time.process_time() - start
    print(json.dumps([outcome, seconds, resident("VmHWM") - before]))
