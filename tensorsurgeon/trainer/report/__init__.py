"""The report of a training: one page, made from the metrics alone."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def write_report(runs: "Sequence[Path]", output: Path, *, title: str) -> None:
    """Make a report, as `page.write_report`; the page is imported only now."""
    from tensorsurgeon.trainer.report.page import write_report as write

    write(runs, output, title=title)
