"""A checkpoint that is a commit of a repository, and of which not every file is here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """A file of a repository.

    Attributes:
        nbytes: its size.
        sha256: its digest, hexadecimal; None for small files, which are not kept by it.
        git: the SHA-1 by which Git names it, hexadecimal; None where that is not known, as of
            large files, of which Git has a pointer only.
    """

    nbytes: int
    sha256: str | None
    git: str | None = None


class Starts(Protocol):
    """Reads the beginnings of files: as many bytes as their safetensors headers take."""

    def __call__(self, names: list[str]) -> Mapping[str, bytes]:
        """Whatever begins like no header is given as it is, cut; the caller looks at it."""


@dataclass(frozen=True, kw_only=True)
class Repo:
    """One commit of a model repository.

    Attributes:
        name: `org/name`.
        revision: as it was asked for: a branch, a tag or a commit; all of them where it was by
            several.
        commit: what that is.
        files: the files at its top, by name.
        starts: reads of them what a plan needs; None where they are all here.
        lost: why nothing can be fetched of it now; empty where it can.
    """

    name: str
    revision: str
    commit: str
    files: Mapping[str, RemoteFile]
    starts: Starts | None = field(default=None, compare=False)
    lost: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}"
