"""Run on a disk that is too small for the third checkpoint: says, as JSON, how that ends."""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from tensorsurgeon.errors import OutputError
from tensorsurgeon.trainer.saving import Saver
from tests.trainer.saving.ranks import run
from tests.trainer.saving.states import loaded, state_of

ROWS = 150
"""Of a state; 420 kB."""


def fill(folder: Path) -> tuple[str, int]:
    """Saves until the disk is full; the error, and at which poll it came."""
    with Saver(folder, keep=3) as saver:
        for step in (1, 2, 3):
            saver.save(step, state_of(step, ROWS), {}, wait=step < 3)
        for number in range(10_000):
            try:
                saver.poll()
            except OutputError as error:
                return str(error), number
            time.sleep(0.002)
    raise AssertionError


def fill_and_wait(folder: Path) -> tuple[str, int]:
    """The same for a save that is waited for."""
    with Saver(folder, keep=3) as saver:
        try:
            for step in (1, 2, 3):
                saver.save(step, state_of(step, ROWS), {}, wait=True)
        except OutputError as error:
            return str(error), step
    raise AssertionError


def outcome(world: int, disk: Path) -> dict[str, Any]:
    """What is told and left; then there is room again, and the next run goes on."""
    ballast, folder = disk / "ballast", disk / "checkpoints"
    ballast.write_bytes(b" " * 500_000)
    ends = run(world, fill, folder)
    left = sorted(path.name for path in folder.iterdir())
    found = [step for step, *_ in run(world, loaded, folder, ROWS)]
    shutil.rmtree(folder)
    waited = run(world, fill_and_wait, folder)
    ballast.unlink()
    run(world, go_on, folder)
    after = [(step, sorted(values)) for step, values, _ in run(world, loaded, folder, ROWS)]
    shutil.rmtree(folder)
    return {
        "ends": ends,
        "left": left,
        "found": found,
        "waited": waited,
        "after": after,
    }


def go_on(folder: Path) -> None:
    with Saver(folder, keep=3) as saver:
        saver.save(3, state_of(3, ROWS), {}, wait=True)


if __name__ == "__main__":
    print(json.dumps([outcome(int(world), Path(sys.argv[1])) for world in sys.argv[2:]]))
