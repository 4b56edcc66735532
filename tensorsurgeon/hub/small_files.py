"""Small files of a repository that planning looks into, fetched and held against their digests."""

from collections.abc import Sequence
from pathlib import Path

from tensorsurgeon.checkpoint import Repo, identify
from tensorsurgeon.hub.errors import lacking_error
from tensorsurgeon.hub.fetching import CONNECTIONS
from tensorsurgeon.hub.intact import check_intact
from tensorsurgeon.hub.snapshot import download
from tensorsurgeon.hub.threads import in_threads


def fetch_small(repo: Repo, folder: Path, names: Sequence[str]) -> None:
    """Have files of a commit in the cache.

    Args:
        repo: the commit.
        folder: its folder in the cache.
        names: the files.

    Raises:
        HubError: one cannot be fetched, or has other bytes than the repository says.
    """
    absent = [name for name in names if not (folder / name).exists()]
    if repo.lost and absent:
        raise lacking_error(str(repo), absent, repo.lost)

    def fetch(name: str) -> None:
        if name in absent:
            download(repo.name, name, repo.commit, label=repo.revision)
        if name in repo.files:
            check_intact(repo, folder / name, identify(folder / name))

    in_threads(fetch, names, CONNECTIONS)
