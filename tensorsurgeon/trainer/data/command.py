"""`tensorsurgeon train prepare` and `check`: the command line of token shards."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tensorsurgeon.errors import DataError, Problem, printable
from tensorsurgeon.specs import parse_size, size_text
from tensorsurgeon.trainer.counted import counted

if TYPE_CHECKING:
    from tensorsurgeon.trainer.data.index import TokenIndex
    from tensorsurgeon.trainer.data.prepare import Prepared, Told

_QUIET = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
}

_FOLDER = click.Path(path_type=Path)


def _size(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else parse_size(value)
    except ValueError as error:
        raise click.BadParameter(printable(str(error))) from None


@click.command()
@click.argument("inputs", nargs=-1, type=_FOLDER, metavar="[INPUT]...")
@click.option(
    "--tokenizer",
    required=True,
    type=_FOLDER,
    metavar="DIR",
    help="Folder of the checkpoint that will be trained.",
)
@click.option("-o", "--output", required=True, type=_FOLDER, metavar="DIR", help="Folder to make.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "alpaca", "chat", "preference"]),
    default="text",
    show_default=True,
    help="What the records are.",
)
@click.option(
    "--dataset",
    metavar="NAME",
    help="A dataset of the Hub, as ORG/NAME[@REVISION], or a folder; read after every INPUT.",
)
@click.option("--subset", metavar="NAME", help="Which of the dataset's configurations.")
@click.option("--split-name", metavar="NAME", help="Which split of the dataset; by default train.")
@click.option(
    "--field", metavar="NAME", help="Where the text is, or the messages; by default so named."
)
@click.option(
    "--split",
    type=click.Choice(["file", "blank-lines", "lines"]),
    default="file",
    show_default=True,
    help="What of a text file is a document.",
)
@click.option(
    "--held-out",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="FRACTION",
    help="Keep this share of the records from training, chosen by their content.",
)
@click.option(
    "--held-out-output", type=_FOLDER, metavar="DIR", help="Folder to make of what is held out."
)
@click.option(
    "--seed",
    type=click.IntRange(0, (1 << 63) - 1),
    default=0,
    show_default=True,
    help="Of the choice of what is held out.",
)
@click.option("--shard-size", callback=_size, metavar="SIZE", help="Of one file; by default 256MB.")
@click.option("--overwrite", is_flag=True, help="Replace token shards that are already there.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def prepare(
    inputs: tuple[Path, ...],
    held_out: float | None,
    held_out_output: Path | None,
    dataset: str | None,
    subset: str | None,
    split_name: str | None,
    shard_size: int | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Make token shards of each INPUT: text, JSONL or Parquet, as files or folders of them.

    JSONL and Parquet have the field `text`, or `instruction`, `input` and `output` (alpaca),
    `messages` (chat), or `prompt`, `chosen` and `rejected` (preference). Text and JSONL may be
    packed, in files that end in .gz. Of a folder, files of these kinds are read; a file that is
    named is read as text whatever it is called, but for tables (.csv, .tsv), which are refused.
    """
    if not inputs and dataset is None:
        raise click.UsageError("nothing to read: name an INPUT or a --dataset")
    if dataset is None and (subset or split_name):
        raise click.UsageError("--subset and --split-name go with --dataset")
    if (held_out is None) != (held_out_output is None):
        raise click.UsageError("--held-out and --held-out-output go together")
    if held_out_output is not None and held_out_output.resolve() == options["output"].resolve():
        raise click.UsageError("--held-out-output must be another folder than --output")
    if options["field"] and options["form"] not in ("text", "chat"):
        raise click.UsageError(f"--field does not go with --format {options['form']}")

    from tensorsurgeon.trainer.data import prepare as making
    from tensorsurgeon.trainer.data.dataset_records import DatasetName
    from tensorsurgeon.trainer.data.shard_writer import SHARD_SIZE

    name = None
    if dataset is not None:
        name = DatasetName(name=dataset, subset=subset, split=split_name or "train")
    part = None
    if held_out is not None and held_out_output is not None:
        part = making.HeldOutPart(fraction=held_out, output=held_out_output)
    _quiet_libraries()
    with _progress(quiet=quiet) as told:
        prepared = making.prepare(
            inputs,
            dataset=name,
            held_out=part,
            shard_size=shard_size or SHARD_SIZE,
            told=told,
            **options,
        )
    if not quiet:
        _say_result(prepared, options["output"], held_out_output)


@click.command()
@click.argument("folders", nargs=-1, required=True, type=_FOLDER, metavar="TOKENS...")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def check(folders: tuple[Path, ...], quiet: bool) -> None:
    """Read every byte of the token shards in each folder TOKENS: are they what was prepared?"""
    from tensorsurgeon.trainer.data.shards import open_tokens

    problems: list[Problem] = []
    for folder in folders:
        try:
            with open_tokens(folder, tokenizer_digest=None, vocabulary=None) as shards:
                shards.check_digests()
        except DataError as error:
            problems.extend(error.problems)
            continue
        if not quiet:
            _say(f"{folder}: as it was prepared, {_counts(shards.index)}")
    if problems:
        raise DataError.of(problems)


def _say_result(prepared: "Prepared", output: Path, held_out_output: Path | None) -> None:
    total = prepared.index.tokens + (prepared.held_out.tokens if prepared.held_out else 0)
    for suffix, count in sorted(prepared.left_out.items()):
        kind = f"'{suffix}'" if suffix else "no suffix"
        _say(f"note: left out {counted(count, 'file')} of {kind} found in folders")
    for skipped in prepared.skipped:
        _say(f"note: {skipped}")
    if prepared.held_out is not None:
        _say(f"{held_out_output}: {_counts(prepared.held_out)}")
    _say(f"{output}: {_counts(prepared.index)}")
    _say(f"{prepared.seconds:.1f} s, {total / max(prepared.seconds, 1e-9):,.0f} tokens/s")


def _counts(index: "TokenIndex") -> str:
    learned = "" if index.kind == "text" else f", {index.learned:,} of them learned"
    pairs = counted(index.documents // 2, "pair") if index.kind == "preference" else ""
    return (
        f"{counted(index.tokens, 'token')}{learned}, "
        f"{pairs or counted(index.documents, 'document')}, "
        f"{size_text(sum(shard.bytes for shard in index.shards))}"
    )


def _say(text: str) -> None:
    click.echo(printable(text), err=True)


def _quiet_libraries() -> None:
    """What goes wrong is told as an error: bars and warnings of others would only blur it."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def _progress(*, quiet: bool) -> Iterator["Told | None"]:
    """A bar, where somebody looks at it."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def told(done: int, total: int, tokens: int) -> None:
            bar.update(task, completed=done, total=total or None, description=f"{tokens:,} tokens")

        yield told
