"""What interrupted runs have left: listed, and removed on request."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tensorsurgeon.execute.disk import Disk
from tensorsurgeon.execute.journal import read_journal
from tensorsurgeon.execute.workplace import Workplace, holder_of, locked


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
        OSError: the folder cannot be read.
    """
    for path in sorted(folder.iterdir()):
        name = path.name.removeprefix(".").removesuffix(".part")
        place = Workplace.of(folder / name)
        if place.root != path or not place.lock.is_file() or path.is_symlink():
            continue
        record = read_journal(place.journal)
        yield Leftover(
            path=path,
            final=place.final,
            nbytes=sum(inside.lstat().st_blocks * 512 for inside in path.rglob("*")),
            tensors=len(record.digests) if record else 0,
            modified=(place.journal if record else path).stat().st_mtime,
            holder=holder_of(place),
        )


def remove_leftover(leftover: Leftover) -> bool:
    """Remove a work folder.

    Returns:
        Whether an old checkpoint that stood aside there was put back into its place first.

    Raises:
        BusyError: a run is at work in it.
        OSError: it cannot be removed.
    """
    place, disk = Workplace.of(leftover.final), Disk()
    with locked(place, disk):
        put_back = place.put_back(disk)
        place.remove(disk)
    return put_back
