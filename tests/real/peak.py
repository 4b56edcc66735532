"""Runs a program and prints its peak resident memory in bytes.

    python -I -S tests/real/peak.py PROGRAM [ARGUMENT ...]

A process of its own, and a small one (`-I -S` keeps it at about 10 MB), because Linux counts the
memory of the process that starts a program towards the program's own peak.
"""

import os
import sys

if __name__ == "__main__":
    child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
    _, status, usage = os.wait4(child, 0)
    print(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
    sys.exit(os.waitstatus_to_exitcode(status))
