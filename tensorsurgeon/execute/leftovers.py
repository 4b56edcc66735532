"""What interrupted runs have left: listed, and removed on request."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tensorsurgeon.errors import OutputError
from tensorsurgeon.writing import Disk, Workplace, holder_of, locked, read_journal


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A work folder.

    Attributes:
        path: the folder.
        final: what would have become of it.
        nbytes: what it takes on the disk.
        tensors: how many tensors another run need not make again.
        modified: when something last happened in it, in seconds since 1970.
        holder: who is at work in it; None where nobody is.
    """

    path: Path
    final: Path
    nbytes: int
    tensors: int
    modified: float
    holder: str | None

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.modified))
        state = f"in use by {self.holder}" if self.holder else f"interrupted {when}"
        return f"{state}, {self.tensors} tensors made"


def find_leftovers(folder: Path) -> Iterator[Leftover]:
    """Work folders in a folder, by name.

    Raises:
        OutputError: the folder cannot be read.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise OutputError(f"cannot be read: {error.strerror}", where=str(folder)) from None
    for path in entries:
        name = path.name.removeprefix(".").removesuffix(".part")
        place = Workplace.of(folder / name)
        if place.root == path and place.lock.is_file() and not path.is_symlink():
            with suppress(FileNotFoundError):  # a run that was at work in it has ended meanwhile
                yield _look_at(place)


def remove_leftover(leftover: Leftover) -> bool:
    """Remove a work folder.

    Returns:
        Whether an old checkpoint that stood aside there was put back into its place first.

    Raises:
        BusyError: a run is at work in it.
        OutputError: it cannot be removed.
    """
    place, disk = Workplace.of(leftover.final), Disk()
    try:
        with locked(place, disk):
            put_back = place.put_back(disk)
            place.remove(disk)
    except OSError as error:
        what = f"cannot be removed: {error.strerror}"
        raise OutputError(what, where=str(leftover.path)) from None
    return put_back


def _look_at(place: Workplace) -> Leftover:
    record = read_journal(place.journal)
    return Leftover(
        path=place.root,
        final=place.final,
        nbytes=sum(inside.lstat().st_blocks * 512 for inside in place.root.rglob("*")),
        tensors=len(record.digests) if record else 0,
        modified=(place.journal if record else place.root).stat().st_mtime,
        holder=holder_of(place),
    )
