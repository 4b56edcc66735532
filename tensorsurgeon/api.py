"""TensorSurgeon from Python: what the commands do, as functions.

::

    from tensorsurgeon import api

    plan = api.plan("recipe.yaml")
    result = api.apply(plan, threads=2, max_memory=512_000_000)
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorsurgeon.card import with_card
from tensorsurgeon.checkpoint import MANIFEST_NAME, Checkpoint, license_of, open_checkpoint
from tensorsurgeon.errors import PlanError, RecipeError, VerifyError
from tensorsurgeon.execute import OpenReader, Result, deliver_plan, is_made, run_plan
from tensorsurgeon.operators import OPERATORS
from tensorsurgeon.places import check as check
from tensorsurgeon.places import destination_of
from tensorsurgeon.plan import PARSING, Beside, Plan, make_plan, memory_needed, threads_within
from tensorsurgeon.processors import default_threads
from tensorsurgeon.recipe import json_schema
from tensorsurgeon.recipe_files import is_ours, read_recipe_file
from tensorsurgeon.sources import (
    open_adapters,
    open_source,
    open_sources,
    read_tokenizers,
    with_replaced,
)
from tensorsurgeon.specs import Progress, parse_repo

if TYPE_CHECKING:
    from tensorsurgeon.hub import Pushed, Target

COPYING_THREADS = 4
"""Threads that keep a fast disk busy where nothing is computed."""


def plan(
    recipe: str | Path,
    *,
    output: str | Path | None = None,
    sources: Mapping[str, str | Path] | None = None,
    push: str | None = None,
    push_only: bool = False,
    copy_code: bool = False,
) -> Plan:
    """Read a recipe and its sources' headers, and work out every byte of the result.

    Args:
        recipe: the file, of ours or of mergekit's. Paths in it are relative to its folder.
        output: the folder to make, in place of the recipe's; relative to the working folder.
        sources: folders, or `hf://…`, in place of sources of the recipe, by their names there; in
            place of an adapter, by the name of the model that it makes.
        push: the repository the result goes to as well, in place of the recipe's; empty for none.
        push_only: send each shard to it as soon as it is complete, and keep none.
        copy_code: let Python files of the model go along, and configs name their classes.

    Raises:
        TensorSurgeonError: whatever is wrong with recipe, sources or their fit to each other.
    """
    path = Path(recipe)
    read = read_recipe_file(path)
    parsed = with_replaced(read.recipe, path, sources or {})
    checkpoints, adapters = open_sources(parsed, path), open_adapters(parsed, path)
    checkpoints, tokenizers = read_tokenizers(parsed, checkpoints)
    made = make_plan(
        parsed,
        checkpoints,
        adapters,
        tokenizers,
        name=str(path),
        text=read.text,
        copy_code=copy_code,
    )
    repo = parsed.output.push if push is None else _named(push)
    folder = destination_of(parsed, path, output)
    if push_only and repo is not None and folder is None:
        folder = Path(repo.partition("@")[0].rpartition("/")[2])
    notes = (*read.notes, *made.notes)
    made = replace(made, destination=folder, push=repo, push_only=push_only, notes=notes)
    licenses = {name: license_of(folder) for name, folder in made.sources.items()}
    return with_card(made, read.recipe, licenses)


def threads_for(
    plan: Plan,
    *,
    threads: int | None = None,
    max_memory: int | None = None,
    stream: bool = False,
) -> int:
    """How many threads a run will use.

    Args:
        plan: the plan.
        threads: the most to use; by default one more than there are processors, and no more
            than COPYING_THREADS where nothing is computed.
        max_memory: budget of resident bytes that is kept; by default there is none.
        stream: whether shards are read from the Hub; one more thread then keeps the line busy.

    Raises:
        PlanError: the budget is too small for even one thread.
    """
    if threads is None:
        computes = any(not tensor.is_copied for tensor in plan.tensors)
        threads = default_threads() if computes else min(default_threads(), COPYING_THREADS)
        threads += bool(stream and plan.to_fetch())
    most = min(threads, max(len(plan.tensors), 1))
    if max_memory is None:
        return most
    return threads_within(plan.jobs(), most, max_memory, _memory_beside(plan))


def memory_for(plan: Plan, threads: int) -> int:
    """Forecast of the peak resident bytes of a run with so many threads."""
    return memory_needed(plan.jobs(), threads, _memory_beside(plan))


def _memory_beside(plan: Plan) -> Beside:
    """What files that are made here take, the Hub's client where it has work, and planning."""
    found = Beside()
    if plan.repos or plan.push is not None:
        from tensorsurgeon.hub import memory_beside

        found = memory_beside(plan)
    return Beside(
        meanwhile=found.meanwhile + sum(len(own.data) for own in plan.own_files),
        afterwards=max(found.afterwards, PARSING * plan.parsed),
    )


def spool_for(plan: Plan, threads: int) -> int:
    """Most bytes of temporary files beside the output, where shards that are not here are streamed.

    A method that reads a tensor twice keeps it there until the tensor is made.
    """
    if not plan.to_fetch():
        return 0
    from tensorsurgeon.hub import spool_needed

    return spool_needed(plan, threads)


def fetch(
    plan: Plan, *, stream: bool = False, frugal: bool = False, progress: Progress | None = None
) -> Plan:
    """Fetch what a plan reads of the Hub and the cache lacks; hold all of it against its digests.

    Args:
        plan: from `plan`.
        stream: leave the shards where they are, since they will be streamed.
        frugal: take no more memory than `memory_for` says, though it may take longer.
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

    return fetch(plan, shards=not stream, frugal=frugal, progress=progress)


def has_room_to_fetch(plan: Plan) -> bool:
    """Whether what a plan reads of the Hub can be put into the cache; else it can be streamed."""
    if not plan.to_fetch():
        return True
    from tensorsurgeon.hub import has_room

    return has_room(plan)


def cache_free(plan: Plan) -> int | None:
    """Free bytes where what a plan fetches would go; None where it fetches nothing."""
    if not plan.to_fetch():
        return None
    from tensorsurgeon.hub import cache_free

    return cache_free()


def apply(
    plan: Plan,
    *,
    overwrite: bool = False,
    resume: bool = True,
    stream: bool = False,
    public: bool = False,
    allow_nonfinite: bool = False,
    threads: int | None = None,
    max_memory: int | None = None,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
) -> Result:
    """Write what a plan describes. The output folder appears whole or not at all.

    What an interrupted run of the same plan has made is not made again. What the plan reads of the
    Hub is fetched first. Where the plan names a repository, the result is pushed to it.

    Args:
        plan: from `plan`.
        overwrite: replace a checkpoint that is there.
        resume: go on from what an interrupted run has left.
        stream: read tensors of the Hub as they are merged, and store none.
        public: make the repository a public one, if it has to be made.
        allow_nonfinite: let NaNs and infinities of the inputs pass, as far as a method can.
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
    count = threads_for(plan, threads=threads, max_memory=max_memory, stream=stream)
    place = check(plan, overwrite=overwrite)
    if plan.push is not None and not (plan.push_only or overwrite) and is_made(plan, place):
        _verify(place, progress)  # it is there to be pushed, and may have been edited
    target = None if plan.push is None else open_target(plan.push, public=public)
    if target is not None and target.is_new and notice is not None:
        notice(f"made the repository {target.repo}")
    frugal = max_memory is not None
    fetched = fetch(plan, stream=stream, frugal=frugal, progress=progress)
    fetched = replace(fetched, allow_nonfinite=allow_nonfinite)
    open_reader: OpenReader | None = None
    if fetched.to_fetch():
        from tensorsurgeon.hub import HubReader

        open_reader = HubReader
    if plan.push_only:
        from tensorsurgeon.hub import HubDelivery

        assert target is not None
        return deliver_plan(
            fetched,
            place,
            HubDelivery(target),
            threads=count,
            resume=resume,
            progress=progress,
            notice=notice,
            open_reader=open_reader,
        )
    result = run_plan(
        fetched,
        place,
        threads=count,
        overwrite=overwrite,
        resume=resume,
        progress=progress,
        notice=notice,
        open_reader=open_reader,
    )
    if target is None:
        return result
    try:
        pushed = push_to(target, place, progress=progress)
    except BaseException as error:
        error.add_note(f"the checkpoint is complete in {place}: the same command sends it")
        raise
    return replace(result, address=pushed.address, notes=(*result.notes, *pushed.notes))


def open_target(name: str, *, public: bool = False) -> "Target":
    """Open a repository for writing, and make it if it is not there.

    Args:
        name: `org/name`, or `org/name@branch`.
        public: whether one that is made is public.

    Raises:
        PushError: no token, no right to write there, no network, or no name of a repository.
    """
    from tensorsurgeon.hub import open_target

    return open_target(name, public=public)


def push(
    folder: str | Path,
    name: str,
    *,
    public: bool = False,
    message: str | None = None,
    check: bool = True,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
) -> "Pushed":
    """Put a checkpoint folder to the Hub in one commit; one that has a manifest is verified first.

    Args:
        folder: the checkpoint.
        name: `org/name`, or `org/name@branch`; made if need be.
        public: whether a repository that is made is public.
        message: the commit's.
        check: hold the folder against its manifest first, where it has one.
        progress: called a few times a second with bytes done and bytes in all.
        notice: told when a repository was made.

    Raises:
        CheckpointError: it is no sound checkpoint.
        VerifyError: it is not what its manifest says.
        PushError: nothing was committed; or what was is not what was sent, and the message says so.
    """
    from tensorsurgeon.hub import check_target

    path = Path(folder)
    open_checkpoint(path)
    check_target(name)
    if check:
        _verify(path, progress)
    target = open_target(name, public=public)
    if notice is not None and target.is_new:
        notice(f"made the repository {target.repo}")
    try:
        return push_to(target, path, message=message, progress=progress)
    except (KeyboardInterrupt, SystemExit) as ending:
        ending.add_note("what was sent is not sent again: the same command goes on")
        raise


def _verify(folder: Path, progress: Progress | None) -> None:
    """Hold a checkpoint against its manifest, where it has one."""
    if not (folder / MANIFEST_NAME).exists():
        return
    from tensorsurgeon.verify import verify

    if problems := verify(folder, progress=progress).problems:
        error = VerifyError.of(problems)
        error.add_note("'tensorsurgeon push --no-verify' sends the folder as it is")
        raise error


def push_to(
    target: "Target",
    folder: Path,
    *,
    message: str | None = None,
    progress: Progress | None = None,
) -> "Pushed":
    """Put a checkpoint folder to a target that is open; raises as `push`."""
    from tensorsurgeon.hub import MESSAGE, push_folder

    return push_folder(folder, target, message=message or MESSAGE, progress=progress)


def inspect(checkpoint: str | Path) -> Checkpoint:
    """A checkpoint's config, tensors and files, from its headers alone.

    Args:
        checkpoint: a folder, or a repository of the Hub.
    """
    return open_source(str(checkpoint))


def schema(recipe: str | Path | None = None) -> dict[str, Any]:
    """The JSON Schema of recipes; that of mergekit's where the file is one of those."""
    if recipe is None or is_ours(Path(recipe)):
        return json_schema(OPERATORS)
    from tensorsurgeon.mergekit import mergekit_schema

    return mergekit_schema()


def convert(recipe: str | Path) -> str:
    """A recipe of mergekit's as the text of one of ours, which gives the same plan.

    Raises:
        RecipeError: what is wrong with it; or it is no recipe of mergekit's.
    """
    if is_ours(Path(recipe)):
        raise RecipeError("has no 'merge_method': it is no recipe of mergekit's", where=str(recipe))
    return read_recipe_file(Path(recipe)).text


def _named(repo: str) -> str | None:
    try:
        return parse_repo(repo) if repo else None
    except ValueError as error:
        raise PlanError(str(error)) from None
