"""Runs a function on several ranks of one training, each a process of its own."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any


def on_ranks(size: int, work: Callable[..., Any], *args: Any, seconds: float = 120) -> list[Any]:
    """What `work(*args)` returns on each rank, in order; it is of a module that can be imported.

    Args:
        size: how many ranks.
        work: called on each; what it returns is pickled.
        args: of its call.
        seconds: after which all of them are killed.
    """
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=_on_rank, args=(rank, size, port, results, work, args), daemon=True)
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    try:
        told = dict(results.get(timeout=seconds) for _ in processes)
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    failed = [f"rank {rank}: {text}" for rank, (failure, text) in sorted(told.items()) if failure]
    assert not failed, "\n".join(failed)
    return [told[rank][1] for rank in range(size)]


def _on_rank(
    rank: int, size: int, port: int, results: Any, work: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",
    )
    import torch

    torch.set_num_threads(1)
    try:
        results.put((rank, (False, work(*args))))
    except BaseException:
        results.put((rank, (True, traceback.format_exc())))
