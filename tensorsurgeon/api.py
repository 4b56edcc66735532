"""TensorSurgeon from Python: what the commands do, as functions.

::

    from tensorsurgeon import api

    plan = api.plan("recipe.yaml")
    result = api.apply(plan, threads=2, max_memory=512_000_000)
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tensorsurgeon.checkpoint import Checkpoint, open_checkpoint
from tensorsurgeon.errors import (
    CheckpointError,
    HubError,
    PlanError,
    Problem,
    RecipeError,
    TensorSurgeonError,
    did_you_mean,
    shortened,
)
from tensorsurgeon.execute import (
    OpenReader,
    Result,
    check_destination,
    is_finished,
    run_plan,
)
from tensorsurgeon.execute.workplace import Workplace
from tensorsurgeon.operators import OPERATORS
from tensorsurgeon.plan import Plan, make_plan, memory_needed, threads_within
from tensorsurgeon.processors import default_threads
from tensorsurgeon.recipe import Operator, Recipe, Source, json_schema, parse_recipe
from tensorsurgeon.specs import Progress

_HUB = "hf://"

COPYING_THREADS = 4
"""Threads that keep a fast disk busy where nothing is computed."""


def plan(
    recipe: str | Path,
    *,
    output: str | Path | None = None,
    sources: Mapping[str, str | Path] | None = None,
    copy_code: bool = False,
) -> Plan:
    """Read a recipe and its sources' headers, and work out every byte of the result.

    Args:
        recipe: the recipe's file. Paths in it are relative to its folder.
        output: the folder to make, in place of the recipe's; relative to the working folder.
        sources: folders, or `hf://…`, in place of sources of the recipe, by their names there.
        copy_code: let Python files of the model go along, and configs name their classes.

    Raises:
        TensorSurgeonError: whatever is wrong with recipe, sources or their fit to each other.
    """
    path = Path(recipe)
    data = _read_recipe(path)
    parsed = parse_recipe(data, str(path), OPERATORS)
    parsed = _with_sources(parsed, path, sources or {})
    checkpoints = _open_sources(parsed, path)
    made = make_plan(parsed, checkpoints, name=str(path), text=data.decode(), copy_code=copy_code)
    return replace(made, destination=_destination(parsed, path, output))


def threads_for(plan: Plan, *, threads: int | None = None, max_memory: int | None = None) -> int:
    """How many threads a run will use.

    Args:
        plan: the plan.
        threads: the most to use; by default one more than there are processors, and no more
            than COPYING_THREADS where nothing is computed.
        max_memory: budget of resident bytes that is kept; by default there is none.

    Raises:
        PlanError: the budget is too small for even one thread.
    """
    if threads is None:
        computes = any(not tensor.is_copied for tensor in plan.tensors)
        threads = default_threads() if computes else min(default_threads(), COPYING_THREADS)
    most = min(threads, max(len(plan.tensors), 1))
    return most if max_memory is None else threads_within(plan.jobs(), most, max_memory)


def memory_for(plan: Plan, threads: int) -> int:
    """Forecast of the peak resident bytes of a run with so many threads."""
    return memory_needed(plan.jobs(), threads)


def check(plan: Plan, *, overwrite: bool = False) -> Path:
    """Whether the result can go where it shall; returns that folder.

    Raises:
        PlanError: no folder is named, or it must not or cannot be written.
    """
    if plan.destination is None:
        raise PlanError(
            "the recipe names no output folder",
            where=plan.recipe,
            fix="give one with -o, or as output: path in the recipe",
        )
    beside = sum(sidecar.identity.nbytes for sidecar in plan.sidecars)
    nbytes = plan.bytes_written + beside
    replaces = overwrite or is_finished(plan, plan.destination)
    check_destination(plan.destination, plan.sources.values(), nbytes, overwrite=replaces)
    if Path(plan.recipe).resolve().is_relative_to(plan.destination.resolve()):
        raise PlanError(
            f"holds the recipe {plan.recipe}",
            where=str(plan.destination),
            fix="choose an output folder of its own",
        )
    return plan.destination


def fetch(plan: Plan, *, stream: bool = False, progress: Progress | None = None) -> Plan:
    """Fetch what a plan reads of the Hub and the cache lacks; hold all of it against its digests.

    Args:
        plan: from `plan`.
        stream: leave the shards where they are, since they will be streamed.
        progress: called a few times a second with bytes done and bytes in all.

    Returns:
        The plan with these files in it.

    Raises:
        PlanError: the cache has no room.
        CheckpointError: a file cannot be fetched, or has other bytes than its repository says.
    """
    if not plan.repos:
        return plan
    from tensorsurgeon.hub import fetch

    return fetch(plan, shards=not stream, progress=progress)


def has_room_to_fetch(plan: Plan) -> bool:
    """Whether what a plan reads of the Hub can be put into the cache; else it can be streamed."""
    if not plan.to_fetch():
        return True
    from tensorsurgeon.hub import has_room

    return has_room(plan)


def apply(
    plan: Plan,
    *,
    overwrite: bool = False,
    resume: bool = True,
    stream: bool = False,
    threads: int | None = None,
    max_memory: int | None = None,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
) -> Result:
    """Write what a plan describes. The output folder appears whole or not at all.

    What an interrupted run of the same plan has made is not made again. What the plan reads of the
    Hub is fetched first.

    Args:
        plan: from `plan`.
        overwrite: replace a checkpoint that is there.
        resume: go on from what an interrupted run has left.
        stream: read tensors of the Hub as they are merged, and store none.
        threads: the most threads to use; by default as `threads_for` says.
        max_memory: budget of resident bytes, kept by using fewer threads, or refused.
        progress: called a few times a second with bytes done and bytes in all.
        notice: told what was found of an interrupted run.

    Raises:
        PlanError: before anything is written, where it cannot go well.
        BusyError: another run is writing to that folder.
        CheckpointError, OutputError: while it is written. What was done is kept beside the output
            folder, for the next run to go on from.
    """
    count = threads_for(plan, threads=threads, max_memory=max_memory)
    destination = check(plan, overwrite=overwrite)
    fetched = fetch(plan, stream=stream, progress=progress)
    open_reader: OpenReader | None = None
    if fetched.to_fetch():
        from tensorsurgeon.hub import HubReader

        open_reader = HubReader
    return run_plan(
        fetched,
        destination,
        threads=count,
        overwrite=overwrite,
        resume=resume,
        progress=progress,
        notice=notice,
        open_reader=open_reader,
    )


def inspect(checkpoint: str | Path) -> Checkpoint:
    """A checkpoint's config, tensors and files, from its headers alone.

    Args:
        checkpoint: a folder, or a repository of the Hub.
    """
    name = str(checkpoint)
    if _is_repo(name) and not Path(checkpoint).exists():
        return _open_repo(name, Path(checkpoint))
    return open_checkpoint(Path(checkpoint))


def schema() -> dict[str, Any]:
    """The JSON Schema of recipes."""
    return json_schema(OPERATORS)


def _read_recipe(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise RecipeError("is not a file", where=str(path))
        return path.read_bytes()
    except FileNotFoundError:
        beside = [e.name for e in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        fix = did_you_mean(path.name, beside) if beside else ""
        raise RecipeError("there is no such file", where=str(path), fix=fix) from None
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", where=str(path)) from None


def _with_sources(recipe: Recipe, path: Path, sources: Mapping[str, str | Path]) -> Recipe:
    models = dict(recipe.models)
    known = [name for name, model in models.items() if isinstance(model, Source)]
    for name, folder in sources.items():
        source = models.get(name)
        if not isinstance(source, Source):
            raise RecipeError(
                f"there is no source '{name}' to replace",
                where=str(path),
                fix=did_you_mean(name, known),
            )
        place = str(folder)
        place = place if place.startswith(_HUB) else os.path.abspath(place)
        models[name] = source.model_copy(update={"path": place})
    return recipe.model_copy(update={"models": models})


def _open_sources(recipe: Recipe, path: Path) -> dict[str, Checkpoint]:
    """Open every source once; what is wrong with several of them is reported together."""
    opened: dict[str, Checkpoint] = {}
    failed: list[TensorSurgeonError] = []
    for source in _sources_of(recipe):
        if source.path in opened:
            continue
        try:
            opened[source.path] = _open(source, path)
        except TensorSurgeonError as error:
            failed.append(error)
    if len(failed) == 1:
        raise failed[0]
    if failed:
        problems: dict[Problem, None] = dict.fromkeys(p for error in failed for p in error.problems)
        raise CheckpointError.of(problems)
    return opened


def _sources_of(recipe: Recipe) -> Iterator[Source]:
    waiting = deque([*recipe.models.values(), recipe.result])
    while waiting:
        expression = waiting.popleft()
        if isinstance(expression, Source):
            yield expression
        elif isinstance(expression, Operator):
            waiting.extend(expression.operands())


def _open(source: Source, recipe: Path) -> Checkpoint:
    """A source: a folder relative to the recipe's own, or a repository of the Hub."""
    path = source.path
    where = f"{recipe}:{source.mark.line}:{source.mark.column}"
    folder = _beside(recipe, path)
    _check_usable(folder, where, CheckpointError)
    if folder.exists():
        return open_checkpoint(folder)
    if not _is_repo(path):
        beside = [e.name for e in folder.parent.glob("*/")] if folder.parent.is_dir() else []
        fix = did_you_mean(folder.name, beside) if beside else ""
        raise CheckpointError(f"there is no folder {folder}", where=where, fix=fix)
    return _open_repo(path, folder)


def _open_repo(name: str, folder: Path) -> Checkpoint:
    from tensorsurgeon.hub import open_repo

    try:
        return open_repo(name)
    except HubError as error:
        if not name.startswith(_HUB):
            error.add_note(f"there is no folder {folder} either")
        raise


def _is_repo(path: str) -> bool:
    is_name = not path.startswith((".", "/", "~")) and path.partition("@")[0].count("/") == 1
    return path.startswith(_HUB) or is_name


def _destination(recipe: Recipe, path: Path, output: str | Path | None) -> Path | None:
    if output is None and recipe.output.path is None:
        return None
    folder = _beside(path, recipe.output.path or "")
    if output is not None:
        folder = Path(os.path.normpath(output))
    where = str(path) if output is None else "-o"
    for place in (folder, Workplace.of(folder).root):
        _check_usable(place, where, PlanError)
    return folder


def _beside(recipe: Path, path: str) -> Path:
    """A path as a recipe gives it: relative to the recipe's own folder, `~` for a home."""
    return Path(os.path.normpath(recipe.parent / os.path.expanduser(path)))


def _check_usable(path: Path, where: str, kind: type[TensorSurgeonError]) -> None:
    """A path too long, or with a NUL in it, is refused here, not by the first call that uses it."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise kind(f"'{shortened(str(path))}' cannot be used: {reason}", where=where) from None
