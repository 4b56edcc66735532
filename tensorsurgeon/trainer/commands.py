"""The command line of the trainer: `tensorsurgeon train …`. Imports torch only to train."""

from pathlib import Path
from typing import NoReturn

import click

from tensorsurgeon.errors import TrainingError, did_you_mean, printable
from tensorsurgeon.terminal import run_command_line, show, show_json
from tensorsurgeon.trainer.data.command import check, prepare
from tensorsurgeon.trainer.report.command import report


class TrainGroup(click.Group):
    """A group whose first word may be a run file in place of a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Everything but a command's name is what `run` takes."""
        if args and args[0] not in (*ctx.help_option_names, *self.commands):
            words = [word for word in args[:2] if not word.startswith("-")]
            known = did_you_mean(words[0], self.commands) if words else ""
            meant = len(words) > 1 or known.startswith("did you mean")
            if words and meant and not Path(words[0]).exists():
                ctx.fail(f"'{printable(words[0])}' is no run file and no command: {known}")
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=TrainGroup, context_settings={"help_option_names": ["-h", "--help"]})
def train() -> None:
    """Continue the training of a checkpoint: `train RUN.yaml`, or a command below."""


@train.command()
@click.argument("run_file", type=click.Path(path_type=Path), metavar="RUN.yaml")
@click.option("--dry-run", is_flag=True, help="Say what it takes, and train nothing.")
@click.option("--ranks", type=click.IntRange(1), help="With --dry-run: how many will share it.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print JSON.")
@click.option("--no-resume", is_flag=True, help="Begin anew, whatever an interrupted run has left.")
@click.option(
    "--overwrite", is_flag=True, help="Replace a checkpoint that is at the output's path."
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def run(
    run_file: Path,
    dry_run: bool,
    ranks: int | None,
    as_json: bool,
    no_resume: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Train what RUN.yaml says; after an interruption, go on with it."""
    from tensorsurgeon.trainer.run_file import read_run

    if not dry_run and (ranks is not None or as_json):
        raise click.UsageError("--ranks and --json go with --dry-run")
    read = read_run(run_file)
    _check_installed()
    if dry_run:
        from tensorsurgeon.trainer.dry_run import dry_run_text

        resume = not no_resume
        show(dry_run_text(read, ranks=ranks, as_json=as_json, resume=resume, overwrite=overwrite))
        return
    from tensorsurgeon.trainer.train import train

    outcome = train(read, resume=not no_resume, overwrite=overwrite, quiet=quiet)
    if outcome.signal == 2:
        raise KeyboardInterrupt
    if outcome.signal:
        raise SystemExit(128 + outcome.signal)


@train.command()
def schema() -> None:
    """Print the JSON Schema of run files, for editors."""
    from tensorsurgeon.trainer.run_file import json_schema

    show_json(json_schema())


train.add_command(prepare)
train.add_command(check)
train.add_command(report)


def _check_installed() -> None:
    """Whether what the trainer needs is there.

    Raises:
        TrainingError: it is not; says how to get it.
    """
    from importlib.util import find_spec

    missing = [name for name in ("torch", "transformers", "accelerate") if not find_spec(name)]
    if missing:
        what = f"training needs {', '.join(missing)}, which this Python does not have"
        raise TrainingError(what, fix="pip install 'tensorsurgeon[train]'")


def main() -> NoReturn:
    """The trainer alone, as torchrun starts it on every rank."""
    run_command_line(train, "tensorsurgeon train")
