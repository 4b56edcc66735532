"""The files a plan reads, fetched into the ordinary cache and held against their digests."""

import hashlib
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

from huggingface_hub import constants

from tensorsurgeon.checkpoint import FileIdentity, RemoteFile, Repo, identify
from tensorsurgeon.errors import CheckpointError, PlanError
from tensorsurgeon.hub.snapshot import download
from tensorsurgeon.plan import Plan
from tensorsurgeon.specs import Progress, size_text

CONNECTIONS = 4
"""Files on their way at a time."""

_TICK = 0.1
"""Seconds between two calls of Progress."""

_PIECE = 4 << 20


def fetch(plan: Plan, *, shards: bool = True, progress: Progress | None = None) -> Plan:
    """Fetch what a plan reads and the cache lacks; nothing else of its repositories.

    Args:
        plan: the plan.
        shards: whether its shards, too; else only the small files that go along.
        progress: told how far it is.

    Returns:
        The same plan, with these files here.

    Raises:
        PlanError: the cache's disk has no room.
        CheckpointError: a file cannot be fetched, or is not what the repository says.
        KeyboardInterrupt: after the threads have stopped. What has come goes on from there.
    """
    lacking = plan.to_fetch(shards=shards)
    if not lacking:
        return plan
    if not has_room(plan, shards=shards):
        need = size_text(sum(file.nbytes for file in lacking.values()))
        raise PlanError(
            f"has no room for the {need} to be fetched",
            where=constants.HF_HUB_CACHE,
            fix="make room there, choose another place with HF_HOME, or read with --stream",
        )
    found = _Fetching(plan.repos, lacking).run(progress or (lambda _done, _total: None))
    return plan.with_files(found)


def has_room(plan: Plan, *, shards: bool = True) -> bool:
    """Whether the cache's disk has room for what is fetched, and the result if it goes there."""
    cache = _existing(Path(constants.HF_HUB_CACHE))
    need = sum(file.nbytes for file in plan.to_fetch(shards=shards).values())
    if plan.destination is not None:
        parent = _existing(plan.destination.absolute().parent)
        need += plan.bytes_written if parent.stat().st_dev == cache.stat().st_dev else 0
    disk = shutil.disk_usage(cache)
    return not disk.total or need <= disk.free  # some file systems do not tell


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


class _StoppedError(Exception):
    """Raised in a thread when another one failed or the user interrupted."""


class _Fetching:
    """The files that are on their way, and what the threads share."""

    def __init__(self, repos: Mapping[Path, Repo], lacking: Mapping[Path, RemoteFile]) -> None:
        self._repos, self._lacking = repos, lacking
        self._stop, self._counting = threading.Event(), threading.Lock()
        self._done = 0
        self._total = sum(file.nbytes for file in lacking.values())

    def run(self, progress: Progress) -> dict[Path, FileIdentity]:
        """Fetch all, largest first, and raise the first thing that went wrong."""
        paths = sorted(self._lacking, key=lambda path: -self._lacking[path].nbytes)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            waiting: set[Future[FileIdentity]] = set()
            futures = {path: pool.submit(self._fetch, path) for path in paths}
            try:
                waiting = set(futures.values())
                while waiting:
                    ended, waiting = wait(waiting, _TICK, FIRST_EXCEPTION)
                    progress(min(self._done, self._total), self._total)
                    for future in ended:
                        future.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return {path: future.result() for path, future in futures.items()}

    def _fetch(self, path: Path) -> FileIdentity:
        repo, file = self._repos[path.parent], self._lacking[path]
        here = download(
            repo.name, path.name, repo.commit, label=repo.revision, advance=self._advance
        )
        identity = identify(path)
        if file.sha256 is not None and self._digest(path) != file.sha256:
            blob = here.resolve()
            here.unlink(missing_ok=True)
            blob.unlink(missing_ok=True)
            raise CheckpointError(
                "has other bytes than the repository's digest is of",
                where=f"{repo}/{path.name}",
                fix="run again: it was removed from the cache, and is fetched once more",
            )
        return identity

    def _digest(self, path: Path) -> str:
        digest, buffer = hashlib.sha256(), memoryview(bytearray(_PIECE))
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
                if self._stop.is_set():
                    raise _StoppedError
        return digest.hexdigest()

    def _advance(self, nbytes: int) -> None:
        if self._stop.is_set():
            raise _StoppedError
        with self._counting:
            self._done += nbytes
