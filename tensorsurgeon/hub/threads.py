"""The same done to many things at a time, by threads that nobody waits for when the user stops."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from huggingface_hub import close_session

_TICK = 0.1
_GRACE = 1.0
"""Seconds that threads are given to stop. One that hangs in a request ends with the process."""

T = TypeVar("T")
R = TypeVar("R")


def in_threads(
    function: Callable[[T], R],
    items: Sequence[T],
    threads: int,
    *,
    tick: Callable[[], None] = lambda: None,
    stop: threading.Event | None = None,
) -> dict[T, R]:
    """Call a function for each item, in any order; the first failure ends it all.

    Args:
        function: called in any thread.
        items: what with; each once.
        threads: how many calls at a time.
        tick: called ten times a second by this thread.
        stop: set when no more shall be done; a function that takes long looks at it.

    Raises:
        BaseException: whatever a call has raised, or KeyboardInterrupt.
    """
    waiting, found = deque(items), dict[T, R]()
    failures: list[BaseException] = []
    stop = stop or threading.Event()

    def work() -> None:
        while waiting and not stop.is_set():
            try:
                item = waiting.popleft()
                found[item] = function(item)
            except IndexError:
                return
            except BaseException as error:
                failures.append(error)
                stop.set()

    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(threads, len(items)))]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            while worker.is_alive() and not failures:
                worker.join(_TICK)
                tick()
        if failures:
            raise failures[0]
    except BaseException:
        stop.set()
        # Requests on their way fail now. A thread that was itself started here, for one of several
        # repositories, leaves alone those that the others have on theirs.
        if threading.current_thread() is threading.main_thread():
            close_session()
        for worker in workers:
            worker.join(_GRACE / len(workers))
        raise
    return found
