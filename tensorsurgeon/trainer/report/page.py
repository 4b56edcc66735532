"""The page: everything in one file, which nothing is fetched for and no name can add to."""

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from tensorsurgeon.errors import OutputError
from tensorsurgeon.trainer.report.axes import axis_of
from tensorsurgeon.trainer.report.facts import header, headline, run_facts
from tensorsurgeon.trainer.report.history import History
from tensorsurgeon.trainer.report.layers import layer_figures
from tensorsurgeon.trainer.report.losses import comparison, loss_figures
from tensorsurgeon.trainer.report.markup import Markup, shown, tag
from tensorsurgeon.trainer.report.script import SCRIPT
from tensorsurgeon.trainer.report.seams import seam_figures
from tensorsurgeon.trainer.report.steps import (
    optimisation_figures,
    preference_figures,
    speed_figures,
)
from tensorsurgeon.trainer.report.style import STYLE


def write_report(runs: Sequence[Path], output: Path, *, title: str) -> None:
    """Make a report of a run, and write it in one piece.

    Args:
        runs: files of metrics: the run's, then those of its controls, as the base model trained
            on the same tokens.
        output: the file to make; its folder is there.
        title: the report's.

    Raises:
        DataError: metrics are not there, damaged, or of no run.
        OutputError: the report cannot be written.
    """
    write_page([History.read(path) for path in runs], output, title=title)


def write_page(histories: Sequence[History], output: Path, *, title: str) -> None:
    """As `write_report`, of what is read already."""
    page = report_page(histories, title=title)
    beside = output.with_name(f".{output.name}.{os.getpid()}.new")
    try:
        try:
            beside.write_text(page, encoding="utf-8")
            beside.replace(output)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"the report cannot be written: {error.strerror or error}",
            where=str(output),
            fix="choose another file with -o",
        ) from None


def report_page(histories: Sequence[History], *, title: str) -> str:
    """The report as HTML.

    Args:
        histories: the run, then its controls; at least one.
        title: the report's.
    """
    run, names = histories[0], _names(histories)
    x = axis_of([0, *(history.tokens for history in histories)], unit="count", margin=0, count=6)
    own = x if len(histories) == 1 else axis_of([0, run.tokens], unit="count", margin=0, count=6)
    sections = (
        _section("Loss", loss_figures(histories, names, x), comparison(histories, names)),
        _section("Preferences", preference_figures(run, own)),
        _section("Layers", layer_figures(run)),
        _section("Seams", seam_figures(run, own)),
        _section("Optimisation", optimisation_figures(run, own)),
        _section("Speed and memory", speed_figures(run, own)),
        _section("The run", run_facts(run)),
    )
    body = tag("main", header(run, title), headline(run), *sections)
    content = tag("body", body, tag("script", Markup(SCRIPT)))
    return f"<!doctype html>\n{tag('html', _head(title), content, lang='en')}\n"


def _section(name: str, *parts: Markup | None) -> Markup | None:
    present = [part for part in parts if part]
    return tag("section", tag("h2", name), *present) if present else None


def _names(histories: Sequence[History]) -> list[str]:
    """What each run is called, all different."""
    names: list[str] = []
    for history in histories:
        name, number = history.run.name or "run", 2
        while name in names:
            name, number = f"{history.run.name} ({number})", number + 1
        names.append(name)
    return names


def _head(title: str) -> Markup:
    # Were a name ever to become markup, nothing that it asks for would be run or fetched.
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("title", shown(title)),
        tag("style", Markup(STYLE)),
    )
