"""The checkpoint that comes out of a training: where it goes, and the values it gets."""

import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from tensorsurgeon.specs import Progress, size_text
from tensorsurgeon.trainer.export import (
    Export,
    Losses,
    Training,
    is_finished,
    plan_export,
    write_checkpoint,
)
from tensorsurgeon.trainer.records import Recorder
from tensorsurgeon.trainer.resume import first_rank
from tensorsurgeon.trainer.setup import Setup
from tensorsurgeon.trainer.slices import stored_values
from tensorsurgeon.writing import check_destination, manifest_of


def check_output(setup: Setup, *, overwrite: bool, finished: bool) -> Export | None:
    """What will be written, once it is sure that it can go there; None where no output is named.

    Args:
        setup: the training.
        overwrite: whether a checkpoint that is there may be replaced.
        finished: whether its last step is taken, so that what is there may well be its result.

    Raises:
        PlanError: it is there already, lies in what is trained, or its disk is too small.
    """
    path = setup.run.settings.output.path
    if path is None:
        return None
    export = _plan(setup)
    sources = (setup.checkpoint.path, setup.run.folder)
    final = setup.run.beside(path)
    keeps = finished and (is_finished(export, final) or is_made(export, final))
    more_room = "free space there, or name another disk as output: path:"
    check_destination(
        final, sources, export.nbytes, overwrite=overwrite or keeps, more_room=more_room
    )
    return export


def is_made(export: Export, final: Path) -> bool:
    """Whether the result of the same training is in its place already."""
    manifest = manifest_of(final)
    return manifest is not None and manifest.created.get("binding") == export.binding


def _is_in_place(export: Export, final: Path) -> bool:
    """Whether nothing is left to be done, not even to remove what an interrupted run has left."""
    return is_made(export, final) and not is_finished(export, final)


def _plan(setup: Setup) -> Export:
    run = setup.run
    return plan_export(
        setup.checkpoint,
        Training(
            run_file=run.text,
            stage=run.settings.stage,
            steps=run.steps,
            tokens=run.steps * run.tokens_per_step,
            seed=run.settings.seed,
        ),
        depth=len(setup.layer_map),
        dtype=run.settings.output.dtype,
        max_shard_size=run.settings.output.max_shard_size,
    )


def write_result(
    setup: Setup, export: Export | None, recorder: Recorder, *, overwrite: bool
) -> Path | None:
    """Write the checkpoint; every rank takes part, since each has a part of every tensor.

    Returns:
        Its folder; None where the run names none.
    """
    path = setup.run.settings.output.path
    if path is None or export is None:
        return None
    final = setup.run.beside(path)
    if not overwrite and first_rank(lambda: _is_in_place(export, final)):
        recorder.say(f"{path} is there already")
        return final

    def values(name: str) -> Tensor | None:
        owners = {owner for owner, _ in setup.model.parts.get(name, ())}
        if all(setup.treatments[owner].frozen for owner in owners):
            return None
        return stored_values(setup.model, name)

    losses = Losses(
        before=recorder.first.loss if recorder.first else None,
        after=recorder.last.loss if recorder.last else None,
        base=recorder.baseline.loss if recorder.baseline else None,
    )
    progress = telling(recorder.say, path)
    write_checkpoint(export, final, values, losses=losses, overwrite=overwrite, progress=progress)
    recorder.say(f"wrote {path}")
    return final


def telling(say: Callable[[str], None], path: str, *, every: float = 10.0) -> Progress:
    """Says how much of an output is written, each time after so many seconds."""
    told = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= every:
            told = time.monotonic()
            share = f"{done / max(total, 1):.0%}"
            say(f"writing {path}: {size_text(done)} of {size_text(total)} ({share})")

    return progress
