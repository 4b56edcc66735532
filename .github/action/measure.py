"""Runs a program, tells its time and its peak of memory, and fails where that is above a limit.

    python measure.py TABLE LIMIT PROGRAM [ARGUMENT ...]

TABLE is the Markdown file to write. LIMIT is a size as `512MB`, or empty. The exit code is the
program's, or 1 where it went well but above the limit.
"""

import os
import sys
import time
from pathlib import Path

# The sizes are read and shown by the code beside this action, whatever release does the merging.
sys.path.insert(0, str(Path(__file__).parents[2]))
from tensorsurgeon.errors import printable
from tensorsurgeon.specs import parse_size, size_text


def main(table: str, limit: str, *command: str) -> int:
    """Runs `command`; its exit code, or what this module's first lines say."""
    try:
        allowed = parse_size(limit) if limit else None
    except ValueError as error:
        print(f"error: max-memory: {printable(str(error))}", file=sys.stderr)
        return 2
    started = time.perf_counter()
    child = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - started
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    Path(table).write_text(
        "| wall time | peak memory | limit |\n| ---: | ---: | ---: |\n"
        f"| {seconds:.2f} s | {size_text(peak)} | {size_text(allowed) if allowed else 'none'} |\n"
    )
    code = os.waitstatus_to_exitcode(status)
    if code:
        return code if code > 0 else 128 - code
    if allowed and peak > allowed:
        print(
            f"error: {size_text(peak)} of memory at the peak, where max-memory is "
            f"{size_text(allowed)}\n  fix: give a larger max-memory",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
