"""Ranks as real processes, each forked from one that has imported torch already."""

import multiprocessing
import pickle
import secrets
import tempfile
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT = 120

_CONTEXT = multiprocessing.get_context("forkserver")
_PRELOADED = ("torch._dynamo", "torch.distributed.fsdp", "tensorsurgeon.trainer.saving")
_CONTEXT.set_forkserver_preload(list(_PRELOADED))


@cache
def _stores() -> "tempfile.TemporaryDirectory[str]":
    """Where ranks find each other; removed with this process."""
    return tempfile.TemporaryDirectory()


@dataclass(frozen=True, kw_only=True)
class Rank:
    process: ForkServerProcess
    results: Connection

    def outcome(self) -> Any:
        """What its work returned or raised; None if it was killed."""
        if not self.results.poll(TIMEOUT):
            self.process.kill()
            raise TimeoutError("a rank hangs")
        try:
            result, shown = pickle.loads(self.results.recv_bytes())
        except EOFError:
            result, shown = None, ""
        self.process.join(TIMEOUT)
        assert not self.process.is_alive()
        if isinstance(result, BaseException):
            result.add_note(shown)
        return result


def start(world: int, work: Callable[..., Any], *arguments: Any) -> list[Rank]:
    """Start ranks that have a process group; `work` is a function of a module."""
    store = str(Path(_stores().name) / secrets.token_hex(8))
    ranks = []
    for rank in range(world):
        here, there = _CONTEXT.Pipe()
        process = _CONTEXT.Process(
            target=_work, args=(rank, world, store, there, work, arguments), daemon=True
        )
        process.start()
        there.close()
        ranks.append(Rank(process=process, results=here))
    return ranks


def outcomes(world: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What the work returns or raises on each rank."""
    return [rank.outcome() for rank in start(world, work, *arguments)]


def run(world: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What the work returns on each rank; its error, if it raises one on any."""
    results = outcomes(world, work, *arguments)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


@contextmanager
def joined(rank: int, world: int, store: str) -> Any:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, world), rank=rank, world_size=world)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _work(
    rank: int,
    world: int,
    store: str,
    results: Connection,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    with joined(rank, world, store):
        try:
            results.send_bytes(pickle.dumps((work(*arguments), "")))
        except BaseException as error:
            results.send_bytes(pickle.dumps((error, traceback.format_exc())))
