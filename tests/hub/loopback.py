"""A Hugging Face Hub on loopback addresses, for tests: what is on it, what it was asked, faults."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.hub.cdn import Cdn
from tests.hub.content import Content
from tests.hub.faults import Faults
from tests.hub.line import Line
from tests.hub.log import RequestLog
from tests.hub.messages import Route
from tests.hub.reading import Reading
from tests.hub.registry import Registry
from tests.hub.server import Host
from tests.hub.state import Account, Commit, Repo, entries
from tests.hub.writing import Writing

CANARY = "hf_CanaryCanaryCanaryCanaryCanaryCan"
"""A token that works, and that must be found nowhere but in requests to the Hub itself."""

HUB_ADDRESS = "127.0.0.1"

CDN_ADDRESS = "127.0.0.2"
"""Another host than the Hub, where the system has more than one loopback address."""

CLIENT_VARIABLES = ("HF_", "HUGGING", "TRANSFORMERS_OFFLINE")
"""What the variables begin with that change where and how the client looks."""

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

Files = Mapping[str, bytes | str | Content]


class LoopbackHub:
    """A Hub with its CDN, from construction to `stop`.

    The canary's account is called "tester" and belongs to the organisation "org": those are the
    namespaces whose private repositories it sees and in which it may write.

    Attributes:
        endpoint: what HF_ENDPOINT is to be.
        cdn_url: the second host.
        token: the canary.
        home: what HF_HOME is to be.
        log: every request to either host.
        faults: what shall go wrong.
        registry: repositories, accounts, and settings such as `page_size` and `part_size`.
    """

    def __init__(self, folder: Path):
        self.token = CANARY
        self.home = folder / "hf_home"
        self.log = RequestLog()
        self.faults = Faults()
        self.registry = Registry(folder / "hub_storage")
        self.registry.accounts[CANARY] = Account(
            name="tester", namespaces=frozenset({"tester", "org"})
        )
        self._hub = Host("hub", HUB_ADDRESS, self.faults, self.log)
        try:
            self._cdn = Host("cdn", CDN_ADDRESS, self.faults, self.log)
        except OSError:
            self._cdn = Host("cdn", HUB_ADDRESS, self.faults, self.log)
        self.endpoint, self.cdn_url = self._hub.url, self._cdn.url
        reading = Reading(self.registry, self.cdn_url)
        writing = Writing(self.registry, self.cdn_url)
        self._hub.routes = writing.routes() + reading.routes()
        self._cdn.routes = Cdn(self.registry).routes()
        self._hub.start()
        self._cdn.start()

    @property
    def connections(self) -> dict[str, int]:
        """How many connections were made so far, by host."""
        return {host.name: host.accepted for host in (self._hub, self._cdn)}

    def connect_by(self, line: Line) -> None:
        """Has the answers of both hosts go through one line from now on."""
        self._hub.line = self._cdn.line = line

    def add_routes(self, *routes: Route) -> None:
        """Has the Hub answer more requests; new routes go before those there are."""
        self._hub.routes = (*routes, *self._hub.routes)

    def stop(self) -> None:
        """Ends both hosts; raises if a handler has failed, which is a bug of the Hub's own."""
        try:
            self._hub.stop()
        finally:
            self._cdn.stop()

    def settings(self) -> dict[str, str]:
        """The variables by which the client finds this Hub, and nothing else."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.home),
            "HF_TOKEN": self.token,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "no_proxy": f"{HUB_ADDRESS},{CDN_ADDRESS}",
        }

    def environment(self, **more: str) -> dict[str, str]:
        """An environment for a subprocess: this process's, without what it says to the client.

        Args:
            more: variables that are added, or that replace those of `settings`.
        """
        kept = {name: value for name, value in os.environ.items() if not foreign(name)}
        return kept | self.settings() | more

    def add_account(
        self, token: str, name: str, *, namespaces: Iterable[str] = (), write: bool = True
    ) -> Account:
        """Another token that works."""
        account = Account(name=name, namespaces=frozenset({name, *namespaces}), write=write)
        self.registry.accounts[token] = account
        return account

    def add_repo(
        self,
        repo_id: str,
        files: Files | None = None,
        *,
        private: bool = False,
        gated: bool = False,
        granted: Iterable[str] = (),
    ) -> Repo:
        """A repository with one commit on `main`.

        Args:
            files: by path; `Content.of(path)` is a file on disk, which may be large.
            gated: whether only the owner and the accounts in `granted` get its files.
        """
        repo = Repo(id=repo_id, private=private, gated=gated, granted=frozenset(granted))
        self.registry.repos[repo_id] = repo
        self.commit(repo_id, files or {}, title="initial commit")
        return repo

    def add_folder(self, repo_id: str, folder: Path) -> Repo:
        """A repository with the files of a folder, which are served from there."""
        found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return self.add_repo(
            repo_id, {path.relative_to(folder).as_posix(): Content.of(path) for path in found}
        )

    def repo(self, repo_id: str) -> Repo:
        """A repository that there is."""
        return self.registry.repos[repo_id]

    def commit(
        self,
        repo_id: str,
        files: Files,
        *,
        removed: Iterable[str] = (),
        branch: str = "main",
        title: str = "Upload files",
    ) -> Commit:
        """Adds a commit, as somebody else would do it."""
        repo, added = self.repo(repo_id), entries(files)
        for entry in added.values():
            if entry.lfs:
                self.registry.add_object(repo, entry.content)
        return repo.commit(added, removed=removed, branch=branch, title=title)

    def branch(self, repo_id: str, name: str, revision: str = "main") -> None:
        """Makes a branch, or moves it."""
        repo = self.repo(repo_id)
        with repo.lock:
            repo.branches[name] = repo.resolve(revision).oid

    def tag(self, repo_id: str, name: str, revision: str = "main") -> None:
        """Makes a tag, or moves it."""
        repo = self.repo(repo_id)
        with repo.lock:
            repo.tags[name] = repo.resolve(revision).oid

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """The content of every file, by path."""
        tree = self.repo(repo_id).resolve(revision).tree
        return {path: entry.content.read() for path, entry in tree.items()}

    def url(self, repo_id: str, path: str, revision: str = "main") -> str:
        """Where a file is asked for."""
        return f"{self.endpoint}/{repo_id}/resolve/{revision}/{path}"


def foreign(variable: str) -> bool:
    """Whether an environment variable leads the client elsewhere than to this Hub."""
    return variable.startswith(CLIENT_VARIABLES) or variable.lower() in PROXY_VARIABLES
