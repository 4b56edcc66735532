"""The command line. Data goes to stdout, everything else to stderr; exit codes as in `errors`."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from tensorsurgeon import __version__
from tensorsurgeon.arguments import Assignment, Group, Repo, Size
from tensorsurgeon.errors import PlanError, printable
from tensorsurgeon.methods.command import methods
from tensorsurgeon.terminal import progress_on, run_command_line, say, show, show_json
from tensorsurgeon.trainer.commands import train

if TYPE_CHECKING:
    from collections.abc import Collection

    from tensorsurgeon.checkpoint import RemoteFile
    from tensorsurgeon.plan import Plan

_EPILOG = """
Exit codes: 0 done, 2 usage, 3 recipe, 4 architecture, 5 source checkpoint, 6 plan (budget, disk,
output folder), 7 writing, 8 another run is writing there, 9 a checkpoint is damaged, 10
training, 129 hung up, 130 interrupted, 143 terminated.
"""


def _recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        (
            click.argument("recipe", type=click.Path(path_type=Path)),
            click.option(
                "-o",
                "--output",
                type=click.Path(path_type=Path),
                metavar="DIR",
                help="Folder to make, in place of the recipe's output: path.",
            ),
            click.option(
                "-s",
                "--source",
                "sources",
                type=Assignment(),
                multiple=True,
                help="Use DIR, or hf://ORG/NAME, for the recipe's source NAME. Can be repeated.",
            ),
            click.option(
                "--push",
                type=Repo(),
                help="Push the result to this repository, in place of the recipe's output: push.",
            ),
            click.option(
                "--no-push",
                is_flag=True,
                help="Push nothing, whatever the recipe says.",
            ),
            click.option(
                "--push-only", is_flag=True, help="Send each shard when it is made; keep none."
            ),
            click.option(
                "--threads",
                type=click.IntRange(1, 256),
                help="Tensors worked on at a time; by default one more than there are processors.",
            ),
            click.option(
                "--max-memory",
                type=Size(),
                help="Budget of resident memory, as 512MB: kept, or refused before the start.",
            ),
            click.option(
                "--copy-code",
                is_flag=True,
                help="Let the model's Python files go along, and auto_map go on naming them.",
            ),
        )
    ):
        command = option(command)
    return command


_public = click.option("--public", is_flag=True, help="Make a repository that is new public.")


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(__version__, package_name="tensorsurgeon")
def cli() -> None:
    """Edit, merge and grow model checkpoints by recipe, streamed in very little memory."""


def _push_to(push: str | None, *, no_push: bool, push_only: bool) -> str | None:
    """The repository to push to; empty for none, None for what the recipe says."""
    if no_push and (push is not None or push_only):
        raise click.UsageError("--no-push does not go with --push or --push-only")
    return "" if no_push else push


@cli.command()
@_recipe_options
@click.option("--overwrite", is_flag=True, help="Replace a checkpoint that is already there.")
@click.option("--stream", is_flag=True, help="Store no tensor of the Hub: read them as they merge.")
@_public
@click.option("--no-resume", is_flag=True, help="Start over, whatever an interrupted run has left.")
@click.option("--allow-nonfinite", is_flag=True, help="Let NaNs and infinities pass.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def apply(
    recipe: Path,
    output: Path | None,
    sources: tuple[tuple[str, str], ...],
    push: str | None,
    no_push: bool,
    push_only: bool,
    threads: int | None,
    max_memory: int | None,
    copy_code: bool,
    overwrite: bool,
    stream: bool,
    public: bool,
    no_resume: bool,
    allow_nonfinite: bool,
    quiet: bool,
) -> None:
    """Make the checkpoint that RECIPE describes; after an interruption, go on with it.

    A recipe of mergekit's (mergekit_config.yml) is taken as it is, by all commands.
    """
    from tensorsurgeon import api, report

    plan = api.plan(
        recipe,
        output=output,
        sources=dict(sources),
        push=_push_to(push, no_push=no_push, push_only=push_only),
        push_only=push_only,
        copy_code=copy_code,
    )
    if public and plan.push is None:
        raise click.UsageError("--public goes with --push")
    if overwrite and push_only:
        raise click.UsageError("--overwrite does not go with --push-only, which replaces nothing")
    api.check(plan, overwrite=overwrite)
    if not quiet:
        say(report.layer_map_text(plan))
    if not stream and not api.has_room_to_fetch(plan):
        stream = True
        if not quiet:
            say("note: the cache has no room for the shards: they are streamed, and not stored")
    count = api.threads_for(plan, threads=threads, max_memory=max_memory, stream=stream)
    lacking = plan.to_fetch(shards=not stream)
    if lacking and not quiet:
        _say_fetching(lacking.values())
    with progress_on(quiet=quiet) as progress:
        result = api.apply(
            plan,
            overwrite=overwrite,
            resume=not no_resume,
            stream=stream,
            public=public,
            allow_nonfinite=allow_nonfinite,
            threads=count,
            max_memory=max_memory,
            progress=progress,
            notice=None if quiet else lambda text: say(printable(text)),
        )
    if not quiet:
        say(report.result_text(plan, result, peak_memory=report.peak_memory()))
    if result.address and (quiet or not sys.stdout.isatty()):
        show(printable(result.address))


@cli.command()
@_recipe_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    recipe: Path,
    output: Path | None,
    sources: tuple[tuple[str, str], ...],
    push: str | None,
    no_push: bool,
    push_only: bool,
    threads: int | None,
    max_memory: int | None,
    copy_code: bool,
    as_json: bool,
) -> None:
    """Say what `apply` would do: bytes, memory, disk, layer map. Reads no tensor."""
    from tensorsurgeon import api, report

    made = api.plan(
        recipe,
        output=output,
        sources=dict(sources),
        push=_push_to(push, no_push=no_push, push_only=push_only),
        push_only=push_only,
        copy_code=copy_code,
    )
    streams = not api.has_room_to_fetch(made)
    count = api.threads_for(made, threads=threads, max_memory=max_memory, stream=streams)
    refused: PlanError | None = None
    if made.destination is not None:
        try:
            api.check(made, overwrite=True)
        except PlanError as error:  # the plan itself may tell what to do
            refused = error
    free = _free_disk(made)
    memory = api.memory_for(made, count)
    fetching = report.Fetching(
        free=api.cache_free(made),
        streams=streams,
        spool=api.spool_for(made, count),
    )
    if as_json:
        show_json(
            report.plan_json(made, threads=count, memory=memory, free=free, fetching=fetching)
        )
    else:
        show(report.plan_text(made, threads=count, memory=memory, free=free, fetching=fetching))
    if refused is not None:
        raise refused
    if made.destination is not None and made.destination.exists() and not push_only:
        say(printable(f"note: {made.destination} is already there: apply needs --overwrite"))


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("repo", type=Repo(), metavar="ORG/NAME")
@_public
@click.option("-m", "--message", help="Message of the commit.")
@click.option("--no-verify", is_flag=True, help="Send the folder whatever its manifest says.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but the commit's address.")
def push(
    folder: Path, repo: str, public: bool, message: str | None, no_verify: bool, quiet: bool
) -> None:
    """Put a checkpoint FOLDER to ORG/NAME, or ORG/NAME@BRANCH, in one commit."""
    from tensorsurgeon import api

    with progress_on(quiet=quiet) as progress:
        pushed = api.push(
            folder,
            repo,
            public=public,
            message=message,
            check=not no_verify,
            progress=progress,
            notice=None if quiet else lambda text: say(printable(text)),
        )
    if not quiet:
        for note in pushed.notes:
            say(printable(f"note: {note}"))
        if not pushed.is_new:
            say("note: all of it was there already: nothing is sent")
    show(printable(pushed.address))


@cli.command()
@click.argument("checkpoint")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(checkpoint: str, as_json: bool) -> None:
    """List the tensors of a CHECKPOINT, a folder or ORG/NAME: names, dtypes, shapes, sizes."""
    from tensorsurgeon import api, report
    from tensorsurgeon.arch import find_architecture
    from tensorsurgeon.errors import ArchitectureError

    found = api.inspect(checkpoint)
    for note in found.notes:
        say(f"note: {note}")
    depth, family = None, str(found.config.get("model_type", ""))
    try:
        architecture = find_architecture(found.config, found.tensors, where=checkpoint)
        depth = architecture.depth
    except ArchitectureError as error:
        say(f"note: {error}")
    if as_json:
        show_json(report.checkpoint_json(found, depth, family))
    else:
        show(report.checkpoint_text(found, depth, family))


@cli.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--threads", type=click.IntRange(1, 256), help="Tensors read at a time.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but problems.")
def verify(checkpoint: Path, threads: int | None, as_json: bool, quiet: bool) -> None:
    """Compare every byte of a CHECKPOINT folder with its manifest, and check the rest of it."""
    from tensorsurgeon.errors import VerifyError
    from tensorsurgeon.verify import report_json, report_text, verify

    with progress_on(quiet=quiet or as_json) as progress:
        found = verify(checkpoint, threads=threads, progress=progress)
    if as_json:
        show_json(report_json(found))
    elif not quiet:
        show(report_text(found))
    if found.problems:
        raise VerifyError.of(found.problems)


@cli.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("tensor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(checkpoint: Path, tensor: str, as_json: bool) -> None:
    """Tell which sources, layers, operators and parameters a TENSOR of a CHECKPOINT is made of."""
    from tensorsurgeon.explain import explain, explanation_json, explanation_text

    found = explain(checkpoint, tensor)
    if as_json:
        show_json(explanation_json(found))
    else:
        show(explanation_text(found))


@cli.command()
@click.argument(
    "folder", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--remove", is_flag=True, help="Remove those that no run is at work in.")
def clean(folder: Path, remove: bool) -> None:
    """List what interrupted runs have left in FOLDER, the working folder by default."""
    from tensorsurgeon.execute import find_leftovers, remove_leftover
    from tensorsurgeon.specs import size_text

    for leftover in find_leftovers(folder):
        show(printable(f"{leftover.path}  {size_text(leftover.nbytes)}, {leftover}"))
        if remove and leftover.holder is None:
            if remove_leftover(leftover):
                say(printable(f"put the old checkpoint back at {leftover.final}"))
            say(printable(f"removed {leftover.path}"))


cli.add_command(methods)
cli.add_command(train)


@cli.command()
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
def schema(recipe: Path | None) -> None:
    """Print the JSON Schema of recipes, for editors; that of mergekit's if RECIPE is one."""
    from tensorsurgeon import api

    show_json(api.schema(recipe))


@cli.command()
@click.argument("recipe", type=click.Path(path_type=Path))
def convert(recipe: Path) -> None:
    """Print the mergekit RECIPE as one of ours, which makes the same checkpoint."""
    from tensorsurgeon import api

    show(api.convert(recipe).removesuffix("\n"))


def main() -> NoReturn:
    """Run the command line; every error becomes one message and an exit code."""
    # Nothing here uses BLAS, whose threads would only take memory; but for the trainer.
    if sys.argv[1:2] != ["train"]:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    run_command_line(cli, "tensorsurgeon")


def _say_fetching(files: "Collection[RemoteFile]") -> None:
    from tensorsurgeon.specs import size_text

    nbytes = sum(file.nbytes for file in files)
    say(f"fetching {len(files)} file{'s' * (len(files) != 1)}, {size_text(nbytes)}, to the cache")


def _free_disk(plan: "Plan") -> int | None:
    """Free bytes where the output will go; None where it is not named yet."""
    import shutil

    if plan.destination is None:
        return None
    parent = plan.destination.absolute().parent
    while not parent.exists():
        parent = parent.parent
    return shutil.disk_usage(parent).free


if __name__ == "__main__":
    main()
