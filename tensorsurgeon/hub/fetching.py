"""The files a plan reads, fetched into the ordinary cache and held against their digests."""

import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import constants

from tensorsurgeon.checkpoint import FileIdentity, RemoteFile, identify
from tensorsurgeon.errors import PlanError
from tensorsurgeon.hub.intact import StoppedError, check_intact
from tensorsurgeon.hub.snapshot import download
from tensorsurgeon.hub.threads import in_threads
from tensorsurgeon.plan import Plan
from tensorsurgeon.specs import Progress, size_text

CONNECTIONS = 4
"""Files on their way at a time."""


def fetch(plan: Plan, *, shards: bool = True, progress: Progress | None = None) -> Plan:
    """Fetch what a plan reads and the cache lacks; nothing else of its repositories.

    What is in the cache already is held against its digest as well, once.

    Args:
        plan: the plan.
        shards: whether its shards, too; else only the small files that go along.
        progress: told how far it is.

    Returns:
        The same plan, with these files here.

    Raises:
        PlanError: the cache's disk has no room.
        CheckpointError: a file cannot be fetched, or is not what the repository says.
        KeyboardInterrupt: soon, whatever the network does.
    """
    lacking = plan.to_fetch(shards=shards)
    if not has_room(plan, shards=shards):
        need = size_text(sum(file.nbytes for file in lacking.values()))
        raise PlanError(
            f"has no room for the {need} to be fetched",
            where=constants.HF_HUB_CACHE,
            fix="make room there, choose another place with HF_HOME, or read with --stream",
        )
    fetching = _Fetching(plan, lacking)
    return plan.with_files(fetching.run(progress or (lambda _done, _total: None)))


def has_room(plan: Plan, *, shards: bool = True) -> bool:
    """Whether the cache's disk has room for what is fetched, and the result if it goes there."""
    lacking = plan.to_fetch(shards=shards)
    if not lacking:
        return True
    cache = _existing(Path(constants.HF_HUB_CACHE))
    need = sum(file.nbytes for file in lacking.values())
    if plan.destination is not None:
        parent = _existing(plan.destination.absolute().parent)
        need += plan.bytes_written if parent.stat().st_dev == cache.stat().st_dev else 0
    disk = shutil.disk_usage(cache)
    return not disk.total or need <= disk.free  # some file systems do not tell


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


class _Fetching:
    """The files that are on their way, and what the threads share."""

    def __init__(self, plan: Plan, lacking: Mapping[Path, RemoteFile]) -> None:
        self._repos, self._lacking = plan.repos, lacking
        read = {*plan.paths(), *(sidecar.path for sidecar in plan.sidecars)}
        self._here = {
            path: identity
            for path, identity in plan.inputs().items()
            if isinstance(identity, FileIdentity) and path in read and path.parent in plan.repos
        }
        self._stop, self._counting = threading.Event(), threading.Lock()
        self._done = 0
        self._total = sum(file.nbytes for file in lacking.values())

    def run(self, progress: Progress) -> dict[Path, FileIdentity]:
        """Fetch and check all, largest first; raises the first thing that went wrong."""
        paths = sorted(self._lacking, key=lambda path: -self._lacking[path].nbytes)

        def tick() -> None:
            if self._total:
                progress(min(self._done, self._total), self._total)

        return in_threads(
            self._fetch, [*paths, *self._here], CONNECTIONS, tick=tick, stop=self._stop
        )

    def _fetch(self, path: Path) -> FileIdentity:
        repo, identity = self._repos[path.parent], self._here.get(path)
        if identity is None:
            download(repo.name, path.name, repo.commit, label=repo.revision, advance=self._advance)
            identity = identify(path)
        if path.name in repo.files:
            check_intact(repo, path, identity, self._stop)
        return identity

    def _advance(self, nbytes: int) -> None:
        if self._stop.is_set():
            raise StoppedError
        with self._counting:
            self._done += nbytes
