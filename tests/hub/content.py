"""What a file of a repository holds: bytes in memory or a file on disk, and its digests."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PIECE = 1 << 20
"""Bytes that are read at a time."""

LFS_SUFFIXES = (".bin", ".gguf", ".h5", ".msgpack", ".onnx", ".pt", ".pth", ".safetensors")
"""Names that the Hub's .gitattributes gives to LFS whatever their size."""

LFS_SIZE = 10 * 1024 * 1024
"""Bytes from which a file is LFS whatever its name."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """The content of a file, which never changes.

    Attributes:
        source: the bytes, or a path that nobody writes to as long as the Hub lives; it may be a
            file of holes.
        size: in bytes.
    """

    source: bytes | Path
    size: int

    @classmethod
    def of(cls, source: bytes | str | Path, *, sha256: str | None = None) -> "Content":
        """Content from bytes, text, or a file on disk.

        Args:
            source: text is encoded as UTF-8.
            sha256: the digest of a large file, where the caller knows it; else the file is read
                when the digest is first asked for.
        """
        source = source.encode() if isinstance(source, str) else source
        size = source.stat().st_size if isinstance(source, Path) else len(source)
        content = cls(source=source, size=size)
        if sha256 is not None:
            content.__dict__["sha256"] = sha256
        return content

    @cached_property
    def sha256(self) -> str:
        """The digest by which LFS stores it."""
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()

    @cached_property
    def git_oid(self) -> str:
        """The digest by which git stores it as a blob of its own."""
        digest = hashlib.sha1(b"blob %d\0" % self.size)
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """What git stores of it where LFS has the content."""
        version = "https://git-lfs.github.com/spec/v1"
        return f"version {version}\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    def pieces(self) -> Iterator[bytes]:
        """The bytes, at most `PIECE` at a time."""
        if isinstance(self.source, bytes):
            yield self.source
            return
        with self.source.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece

    def read(self) -> bytes:
        """The bytes, all at once."""
        return b"".join(self.pieces())

    def read_at(self, start: int, count: int) -> bytes:
        """Some of the bytes."""
        if isinstance(self.source, bytes):
            return self.source[start : start + count]
        with self.source.open("rb") as file:
            file.seek(start)
            return file.read(count)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A file in a commit's tree."""

    content: Content
    lfs: bool

    @property
    def oid(self) -> str:
        """What git calls the file: the digest of its content or of its pointer."""
        return Content.of(self.content.pointer).git_oid if self.lfs else self.content.git_oid

    @property
    def etag(self) -> str:
        """What the Hub gives as the file's ETag, without the quotes."""
        return self.content.sha256 if self.lfs else self.content.git_oid


def is_lfs(path: str, size: int) -> bool:
    """Whether the Hub wants a file by LFS."""
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size >= LFS_SIZE)


def cdn_etag(sha256: str) -> str:
    """The ETag of an LFS object at the CDN, without the quotes.

    It never is the digest of the content, as it is not where the real one keeps an object that
    was uploaded in parts.
    """
    return f"{hashlib.md5(sha256.encode()).hexdigest()}-1"
