"""What the Hub knows: repositories with their branches, tags and commits, and who may see them."""

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from types import MappingProxyType

from tests.hub.content import Content, Entry, is_lfs

EMPTY: Mapping[str, Entry] = MappingProxyType({})

GITATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
"""What a repository made by the API holds from the start."""


class Refusal(Exception):  # noqa: N818
    """The Hub answers with an error; code and message are sent as headers, as the Hub does."""

    def __init__(self, status: int, code: str | None, message: str, commit: str | None = None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.commit = commit


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """Whom a token belongs to.

    Attributes:
        namespaces: whose private repositories it sees, and where it may write if it may at all.
    """

    name: str
    namespaces: frozenset[str]
    write: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """A commit; its tree is whole, from path to file."""

    oid: str
    parents: tuple[str, ...]
    tree: Mapping[str, Entry]
    title: str
    message: str
    author: str
    date: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Repo:
    """A model repository. Whoever changes it holds the lock.

    Attributes:
        gated: whether files are given only to `granted` and to the owner.
        granted: names of accounts.
        lfs: digests of the LFS objects that were uploaded to it, in a commit or not yet.
    """

    id: str
    private: bool = False
    gated: bool = False
    granted: frozenset[str] = frozenset()
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def namespace(self) -> str:
        """The user or organisation before the slash; empty for a name without one."""
        return self.id.rpartition("/")[0]

    def resolve(self, revision: str) -> Commit:
        """The commit of a branch, a tag, a `refs/…`, or a full or abbreviated commit id."""
        with self.lock:
            for prefix in ("", "refs/heads/", "refs/tags/"):
                name = revision.removeprefix(prefix)
                oid = self.branches.get(name) or self.tags.get(name)
                if oid is not None:
                    return self.commits[oid]
            found = [oid for oid in self.commits if len(revision) > 6 and oid.startswith(revision)]
        if len(found) != 1:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.commits[found[0]]

    def head(self, branch: str) -> Commit:
        """The last commit of a branch, which a tag or a commit id is not."""
        if branch not in self.branches:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {branch}")
        return self.commits[self.branches[branch]]

    def history(self, commit: Commit) -> Iterator[Commit]:
        """A commit and its first parents, newest first."""
        yield commit
        while commit.parents:
            commit = self.commits[commit.parents[0]]
            yield commit

    def commit(
        self,
        added: Mapping[str, Entry],
        *,
        removed: Iterable[str] = (),
        branch: str = "main",
        parent: str | None = None,
        title: str = "Upload files",
        message: str = "",
        author: str = "tester",
    ) -> Commit:
        """Adds a commit to a branch, which is made if the repository has no branch yet.

        Args:
            added: files by path.
            removed: paths that must exist, taken out before the others are added.
            parent: a commit id, full or abbreviated, that the branch must be at.
        """
        with self.lock:
            base = self.commits[self.head(branch).oid] if self.branches else None
            if parent is not None and not (base and base.oid.startswith(parent)):
                raise Refusal(
                    412, None, "A commit has happened since. Please refresh and try again."
                )
            tree = without(base.tree if base else EMPTY, removed) | dict(added)
            commit = new_commit(
                base, tree, number=len(self.commits), title=title, message=message, author=author
            )
            self.lfs.update(entry.content.sha256 for entry in added.values() if entry.lfs)
            self.commits[commit.oid] = commit
            self.branches[branch] = commit.oid
        return commit


def without(tree: Mapping[str, Entry], removed: Iterable[str]) -> dict[str, Entry]:
    """A tree less some paths; one that ends in a slash is a folder."""
    left = dict(tree)
    for path in removed:
        gone = [
            name
            for name in left
            if name == path or (path[-1:] == "/" and name[: len(path)] == path)
        ]
        if not gone:
            raise Refusal(404, "EntryNotFound", "A file with this name doesn't exist")
        for name in gone:
            del left[name]
    return left


def new_commit(
    base: Commit | None,
    tree: Mapping[str, Entry],
    *,
    number: int,
    title: str,
    message: str,
    author: str,
) -> Commit:
    """A commit whose id depends on all that it holds and on how many there were before."""
    parents = (base.oid,) if base else ()
    files = {path: entry.oid for path, entry in sorted(tree.items())}
    described = json.dumps([number, parents, files, title, message, author])
    return Commit(
        oid=hashlib.sha1(described.encode()).hexdigest(),
        parents=parents,
        tree=MappingProxyType(dict(sorted(tree.items()))),
        title=title,
        message=message,
        author=author,
        date=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    )


def folder_oid(tree: Mapping[str, Entry], folder: str) -> str:
    """What git calls a folder; it depends on the files below and on nothing else."""
    below = sorted((path, entry.oid) for path, entry in tree.items() if inside(path, folder))
    return hashlib.sha1(json.dumps(below).encode()).hexdigest()


def inside(path: str, folder: str) -> bool:
    """Whether a file lies somewhere below a folder; the root is the empty string."""
    return not folder or path.startswith(f"{folder}/")


def folders(tree: Mapping[str, Entry]) -> list[str]:
    """Every folder of a tree but the root."""
    found = {str(parent) for path in tree for parent in PurePosixPath(path).parents}
    return sorted(found - {"."})


def entries(files: Mapping[str, bytes | str | Content]) -> dict[str, Entry]:
    """Files by path as a tree holds them, LFS or not as the Hub decides."""
    contents = {
        path: file if isinstance(file, Content) else Content.of(file)
        for path, file in files.items()
    }
    return {
        path: Entry(content=content, lfs=is_lfs(path, content.size))
        for path, content in contents.items()
    }
