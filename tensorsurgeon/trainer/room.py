"""Room on the disk for a training's checkpoints, asked for before it begins."""

import shutil
from pathlib import Path

from tensorsurgeon.errors import PlanError
from tensorsurgeon.specs import size_text
from tensorsurgeon.trainer.setup import Setup

SAVED_BYTES = 12
"""Of a trained parameter in a checkpoint: itself and AdamW's two moments, in float32."""


def checkpoints_at_once(setup: Setup) -> int:
    """How many lie on the disk at the most: those that are kept, and the one being written."""
    settings = setup.run.settings.checkpoint
    return min(settings.keep + 1, -(-setup.run.steps // settings.every))


def check_room(setup: Setup) -> None:
    """Whether the run's disk has room for its checkpoints, those that are there counted.

    Raises:
        PlanError: it has not.
    """
    folder = setup.run.folder
    each, count = SAVED_BYTES * setup.trained_elements, checkpoints_at_once(setup)
    parent = folder
    while not parent.exists():
        parent = parent.parent
    disk = shutil.disk_usage(parent)
    lacking = each * count - _bytes_in(folder / "checkpoints")
    if disk.total and lacking > disk.free:  # some file systems do not tell
        raise PlanError(
            f"{count} checkpoint{'s' * (count > 1)} of {size_text(each)} need"
            f"{'s' * (count == 1)} {size_text(lacking)} more than is there, and "
            f"{size_text(disk.free)} are free",
            where=str(folder),
            fix="free space there, name a folder on another disk, or lower checkpoint: keep",
        )


def _bytes_in(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.glob("step-*/*"))
    except OSError:  # somebody removes them meanwhile
        return 0
