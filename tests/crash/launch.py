"""`tensorsurgeon` as a process that the tests of this folder can count the system calls of.

Two variables of the environment change it, neither of which changes what it calls or writes:

- `CRASH_BATCH_SECONDS`: how often tensors are flushed and noted in the journal; 0 is after each.
- `CRASH_ONE_THREAD`: threads are run where they are started. strace counts the calls of each thread
  on its own, so only a process of one thread has a k-th call.
"""

import os
import signal
import threading

from tensorsurgeon.cli import main
from tensorsurgeon.writing import journal


class _InPlace(threading.Thread):
    """A thread that has ended when `start` returns."""

    def start(self) -> None:
        self.run()


if __name__ == "__main__":
    # What a shell starts in the background ignores Ctrl-C, and so would this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if seconds := os.environ.get("CRASH_BATCH_SECONDS"):
        journal.BATCH_SECONDS = float(seconds)
    if os.environ.get("CRASH_ONE_THREAD"):
        threading.Thread = _InPlace  # type: ignore[misc]
    main()
