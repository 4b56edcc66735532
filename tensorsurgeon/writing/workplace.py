"""Where a result is made: beside its place, under a lock, and moved there whole.

While `DIR` is made there is a folder `.DIR.part` beside it, on the same file system, with

- `lock`, held by the run that is at work, with its process, host and start in it;
- `journal`, what of the result is on the disk already;
- `checkpoint`, the result itself.

The order of a run, in which every step may be its last:

1. Take the lock. The system gives it back when the process ends, however it ends.
2. Read the journal. If it is of the same work, go on from it; else start afresh: a new `checkpoint`
   and then a new journal, both flushed, and the folders they are in.
3. Lay the shards down at their full sizes, headers written. Write tensors; from time to time flush
   the shards, then note in the journal which tensors are on the disk, and flush the journal.
4. Write config, tokenizer and other files, the index; look whether every file that was read is
   still what it was; write the manifest. Flush each, then `checkpoint`. Only then note in the
   journal that it is complete.
5. Rename `checkpoint` to `DIR`, or exchange the two where `DIR` is to be replaced; flush the folder
   they are in.
6. Remove what is left.

A run that finds the journal complete begins with step 5, if the manifest in `checkpoint` names the
journal's run and no file is missing or cut: after an exchange, what is there is the old folder. It
knows that step 5 was done already when the manifest in `DIR` names the journal's run.

Where a file system cannot exchange, the old folder steps aside as `.DIR.part/old`, and for an
instant there is nothing at `DIR`. A folder is only ever removed as `.DIR.part/discarded`, so that
no part of one is taken for the whole.
"""

import errno
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tensorsurgeon.checkpoint import MANIFEST_NAME, Manifest, read_manifest
from tensorsurgeon.errors import ManifestError, OutputError
from tensorsurgeon.writing.disk import Disk
from tensorsurgeon.writing.journal import Record


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """The paths of one result.

    Attributes:
        final: where the result goes.
        root: the work folder beside it.
    """

    final: Path
    root: Path

    @classmethod
    def of(cls, final: Path) -> "Workplace":
        """The workplace of an output folder."""
        return cls(final=final, root=final.parent / f".{final.name}.part")

    @property
    def lock(self) -> Path:
        """The lock's file."""
        return self.root / "lock"

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.root / "journal"

    @property
    def checkpoint(self) -> Path:
        """The result while it is made."""
        return self.root / "checkpoint"

    @property
    def old(self) -> Path:
        """What is replaced, for an instant, where it cannot be exchanged."""
        return self.root / "old"

    @property
    def discarded(self) -> Path:
        """What is being removed."""
        return self.root / "discarded"

    def is_published(self, record: Record | None, binding: str) -> bool:
        """Whether the result of this work is in its place already.

        Args:
            record: what the journal says; None where there is none any more.
            binding: of the work that is asked for.
        """
        if not self.root.is_dir() or (record is not None and record.binding != binding):
            return False
        there = manifest_of(self.final)
        if there is None:
            return False
        if record is not None:
            return there.created.get("run") == record.run
        return there.created.get("binding") == binding

    def publish(self, disk: Disk, *, overwrite: bool) -> None:
        """Put the complete checkpoint into its place.

        Raises:
            OutputError: something has appeared there meanwhile, and is not to be replaced.
        """
        if not _is_there(self.final):
            self._appear(disk)
        elif not overwrite:
            raise self._has_appeared()
        elif not disk.exchange(self.checkpoint, self.final):
            self.discard(disk, self.old)
            disk.rename(self.final, self.old)
            try:
                disk.rename(self.checkpoint, self.final)
            except BaseException:
                self.put_back(disk)
                raise
        disk.flush_folder(self.final.parent)

    def _appear(self, disk: Disk) -> None:
        try:
            disk.rename(self.checkpoint, self.final)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise self._has_appeared() from None
            raise

    def _has_appeared(self) -> OutputError:
        return OutputError(
            "has appeared while the result was made, and is not replaced",
            where=str(self.final),
            fix="the result is kept: the same command with --overwrite puts it there",
        )

    def holds_all_of(self, record: Record, *, shards: bool = True) -> bool:
        """Whether the complete result of a run is here, no file missing or cut.

        Args:
            record: the run's.
            shards: whether its shards have to be here, too.
        """
        manifest = manifest_of(self.checkpoint)
        if not record.complete or manifest is None or manifest.created.get("run") != record.run:
            return False
        sizes = {**manifest.files, **(manifest.shards if shards else {})}
        with suppress(FileNotFoundError):
            return all(
                (self.checkpoint / name).lstat().st_size == entry["bytes"]
                for name, entry in sizes.items()
            )
        return False

    def discard(self, disk: Disk, path: Path) -> None:
        """Remove a folder in here, which from the first step on has another name."""
        disk.remove_tree(self.discarded)
        if _is_there(path):
            disk.rename(path, self.discarded)
            disk.flush_folder(self.root)
            disk.remove_tree(self.discarded)

    def remove(self, disk: Disk) -> None:
        """Remove the work folder, the lock last; whoever holds it may do so."""
        for folder in (self.checkpoint, self.old):
            self.discard(disk, folder)
        for path in (self.journal, self.lock):
            disk.remove_tree(path)
        with suppress(OSError):  # another run may have come to this place meanwhile
            disk.remove_folder(self.root)

    def put_back(self, disk: Disk) -> bool:
        """Give the old checkpoint its place back, where a run ended while it stood aside."""
        if not self.old.is_dir() or _is_there(self.final):
            return False
        disk.rename(self.old, self.final)
        disk.flush_folder(self.final.parent)
        return True


def manifest_of(folder: Path) -> Manifest | None:
    """The manifest of a checkpoint, where it has one that is sound.

    Raises:
        OutputError: it is there and cannot be read.
    """
    try:
        return read_manifest(folder / MANIFEST_NAME)
    except ManifestError as error:
        cause = error.__cause__
        absent = (FileNotFoundError, NotADirectoryError)
        if isinstance(cause, OSError) and not isinstance(cause, absent):
            what = f"cannot be read: {cause.strerror}"
            raise OutputError(what, where=str(folder / MANIFEST_NAME)) from None
        return None


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()
