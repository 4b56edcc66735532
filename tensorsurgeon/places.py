"""Where a result goes: which folder that is, and whether it can go there."""

import os
from pathlib import Path

from tensorsurgeon.errors import PlanError
from tensorsurgeon.execute import is_finished, is_made
from tensorsurgeon.plan import Plan
from tensorsurgeon.recipe import Recipe
from tensorsurgeon.sources import beside, check_usable
from tensorsurgeon.writing import Workplace, check_destination, check_workplace


def destination_of(recipe: Recipe, path: Path, output: str | Path | None) -> Path | None:
    """The folder to make; None where neither recipe nor caller names one.

    Args:
        recipe: the recipe.
        path: its file; a folder it names is relative to that.
        output: the folder that the caller names, relative to the working folder.

    Raises:
        PlanError: no folder can have that name.
    """
    if output is None and recipe.output.path is None:
        return None
    folder = beside(path, recipe.output.path or "")
    if output is not None:
        folder = Path(os.path.normpath(output))
    where = str(path) if output is None else "-o"
    for place in (folder, Workplace.of(folder).root):
        check_usable(place, where, PlanError)
    return folder


def check(plan: Plan, *, overwrite: bool = False) -> Path:
    """Whether the result can go where it shall; returns that folder.

    Raises:
        PlanError: no folder is named, or it must not or cannot be written.
    """
    if plan.push_only:
        return _check_push_only(plan)
    if plan.destination is None:
        raise PlanError(
            "the recipe names no output folder",
            where=plan.recipe,
            fix="give one with -o, or as output: path in the recipe",
        )
    place, sources = plan.destination, plan.sources.values()
    # What was made and not yet pushed is there to be pushed.
    keeps = is_finished(plan, place) or (plan.push is not None and is_made(plan, place))
    check_destination(place, sources, plan.bytes_on_disk, overwrite=overwrite or keeps)
    if Path(plan.recipe).resolve().is_relative_to(plan.destination.resolve()):
        raise PlanError(
            f"holds the recipe {plan.recipe}",
            where=str(plan.destination),
            fix="choose an output folder of its own",
        )
    return plan.destination


def _check_push_only(plan: Plan) -> Path:
    """As `check`, where of the result one shard at a time is on the disk."""
    if plan.push is None:
        raise PlanError(
            "the recipe names no repository to push to",
            where=plan.recipe,
            fix="give one with --push, or as output: push in the recipe",
        )
    place = plan.destination or Path(plan.push.partition("@")[0].rpartition("/")[2])
    more_room = "one shard at a time is here: a smaller output: max_shard_size may fit"
    check_workplace(place, plan.sources.values(), plan.bytes_on_disk, more_room=more_room)
    return place
