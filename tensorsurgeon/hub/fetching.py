"""The files a plan reads, fetched into the ordinary cache and held against their digests."""

import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants

from tensorsurgeon.checkpoint import FileIdentity, RemoteFile, identify
from tensorsurgeon.checkpoint.header import read_header
from tensorsurgeon.errors import HubError, PlanError
from tensorsurgeon.hub.cache import RepoFolder
from tensorsurgeon.hub.errors import lacking_error
from tensorsurgeon.hub.headers import forget_start
from tensorsurgeon.hub.intact import StoppedError, check_intact
from tensorsurgeon.hub.outgoing import REGULAR_LIMIT
from tensorsurgeon.hub.snapshot import download
from tensorsurgeon.hub.threads import in_threads
from tensorsurgeon.plan import Beside, Plan
from tensorsurgeon.plan.nodes import stored_in
from tensorsurgeon.specs import Progress, StoredTensor, size_text

CONNECTIONS = 4
"""Files on their way at a time."""

PIECE = 1 << 20
"""Bytes that the client takes before it writes them, instead of its 10 MiB; it holds them twice."""

_CLIENT = 16_000_000
"""Resident bytes of the client, once it is imported."""

_PER_FILE = 3_000_000
"""Resident bytes for each file that is on its way."""

_COPIES = 6
"""How often a small file is in memory while the client puts a commit together."""


def memory_beside(plan: Plan) -> Beside:
    """What the client takes, and fetching, and pushing at the end."""
    meanwhile = _CLIENT + (CONNECTIONS * _PER_FILE if plan.to_fetch() else 0)
    if plan.push is None:
        return Beside(meanwhile=meanwhile)
    sizes = [file.identity.nbytes for file in plan.sidecars]
    sizes += [len(file.data) for file in plan.own_files]
    small = sum(nbytes for nbytes in sizes if nbytes <= REGULAR_LIMIT)
    return Beside(meanwhile=meanwhile, afterwards=CONNECTIONS * _PER_FILE + _COPIES * small)


def fetch(
    plan: Plan, *, shards: bool = True, frugal: bool = False, progress: Progress | None = None
) -> Plan:
    """Fetch what a plan reads and the cache lacks; nothing else of its repositories.

    What is in the cache already is held against its digest as well, once.

    Args:
        plan: the plan.
        shards: whether its shards, too; else only the small files that go along.
        frugal: keep to `memory_beside`, which the protocol of the client's own for large files,
            where it is installed, does not.
        progress: told how far it is.

    Returns:
        The same plan, with these files here.

    Raises:
        PlanError: the cache's disk has no room.
        CheckpointError: a file cannot be fetched, or is not what the repository says.
        KeyboardInterrupt: soon, whatever the network does.
    """
    _check_not_lost(plan)
    lacking = plan.to_fetch(shards=shards)
    if not has_room(plan, shards=shards):
        need = size_text(sum(file.nbytes for file in lacking.values()))
        raise PlanError(
            f"has no room for the {need} to be fetched",
            where=constants.HF_HUB_CACHE,
            fix="make room there, choose another place with HF_HOME, or read with --stream",
        )
    fetching = _Fetching(plan, lacking)
    with _small_pieces(frugal=frugal):
        return plan.with_files(fetching.run(progress or (lambda _done, _total: None)))


@contextmanager
def _small_pieces(*, frugal: bool) -> Iterator[None]:
    """Settings of the client's that it has no parameters for."""
    before = constants.DOWNLOAD_CHUNK_SIZE, constants.HF_HUB_DISABLE_XET
    constants.DOWNLOAD_CHUNK_SIZE = min(PIECE, before[0])
    constants.HF_HUB_DISABLE_XET = frugal or before[1]
    try:
        yield
    finally:
        constants.DOWNLOAD_CHUNK_SIZE, constants.HF_HUB_DISABLE_XET = before


def _check_not_lost(plan: Plan) -> None:
    """Whether all that is lacking, to be streamed as well, is of repositories that can be asked."""
    lacking = plan.to_fetch()
    problems = [
        problem
        for folder, repo in plan.repos.items()
        if repo.lost and (names := [path.name for path in lacking if path.parent == folder])
        for problem in lacking_error(str(repo), names, repo.lost).problems
    ]
    if problems:
        raise HubError.of(problems)


def has_room(plan: Plan, *, shards: bool = True) -> bool:
    """Whether the cache's disk has room for what is fetched, and the result if it goes there."""
    lacking = plan.to_fetch(shards=shards)
    if not lacking:
        return True
    cache = _existing(Path(constants.HF_HUB_CACHE))
    need = sum(file.nbytes for file in lacking.values())
    if plan.destination is not None:
        parent = _existing(plan.destination.absolute().parent)
        need += plan.bytes_on_disk if parent.stat().st_dev == cache.stat().st_dev else 0
    free = cache_free()
    return free is None or need <= free


def cache_free() -> int | None:
    """Free bytes on the cache's disk; None where its file system does not tell."""
    disk = shutil.disk_usage(_existing(Path(constants.HF_HUB_CACHE)))
    return disk.free if disk.total else None


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


class _Fetching:
    """The files that are on their way, and what the threads share."""

    def __init__(self, plan: Plan, lacking: Mapping[Path, RemoteFile]) -> None:
        self._repos, self._lacking = plan.repos, lacking
        self._planned: dict[Path, set[StoredTensor]] = {}
        for made in plan.tensors:
            for stored in stored_in(made.node):
                self._planned.setdefault(stored.tensor.path, set()).add(stored.tensor)
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
        if path in self._lacking:
            self._check_header(path)
        return identity

    def _check_header(self, path: Path) -> None:
        """Whether a shard that has come has the tensors where they were planned to be."""
        planned = self._planned.get(path)
        if planned and not planned <= set(read_header(path).values()):
            repo = self._repos[path.parent]
            forget_start(RepoFolder.around(path), repo.files[path.name])
            raise HubError(
                "has another header than the one that was planned with",
                where=f"{repo}/{path.name}",
                fix="run again",
            )

    def _advance(self, nbytes: int) -> None:
        if self._stop.is_set():
            raise StoppedError
        with self._counting:
            self._done += nbytes
