"""`tensorsurgeon train report`: the report of a run that is over, or still going."""

from pathlib import Path

import click

from tensorsurgeon.errors import DataError

METRICS_NAME = "metrics.jsonl"
REPORT_NAME = "report.html"


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("controls", type=click.Path(path_type=Path), nargs=-1)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"File to make; by default {REPORT_NAME} in the run's folder.",
)
@click.option("--title", help="Title of the report; by default the run's name.")
def report(run: Path, controls: tuple[Path, ...], output: Path | None, title: str | None) -> None:
    """Make the report of the training in the folder RUN.

    CONTROLS are folders of other trainings that are drawn beside it, such as one of the base
    model on the same tokens.
    """
    from tensorsurgeon.trainer.report.history import History
    from tensorsurgeon.trainer.report.page import write_page

    histories = [History.read(_metrics_of(folder)) for folder in (run, *controls)]
    made = output or run / REPORT_NAME
    write_page(histories, made, title=title or histories[0].run.name or "Training")
    click.echo(made)


def _metrics_of(folder: Path) -> Path:
    """The metrics in a run's folder.

    Raises:
        DataError: it is no folder, or there are none.
    """
    if not folder.exists():
        what, fix = "there is no such folder", "name the folder of a run, as in its run file"
    elif not folder.is_dir():
        what, fix = "is not a folder", f"name the folder that holds {METRICS_NAME}"
    elif not (folder / METRICS_NAME).exists():
        what = f"has no {METRICS_NAME}"
        fix = "name the folder of a run that has begun, as in its run file"
    else:
        return folder / METRICS_NAME
    raise DataError(what, where=str(folder), fix=fix)
