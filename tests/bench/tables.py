"""A table and its three forms: on a terminal, in a plain log, in Markdown."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

README_START, README_END = "<!-- bench -->", "<!-- /bench -->"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Text cells under column heads; the first columns name the row, the others are figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1
    note: str = ""

    def plain(self) -> str:
        """Aligned columns of text."""
        lines = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [f"{self.title}:"]
        for line in lines:
            cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
            for place in range(self.names):
                cells[place] = line[place].ljust(widths[place])
            text.append("  ".join(cells))
        return "\n".join([*text, *filter(None, [self.note])])

    def markdown(self) -> str:
        """A Markdown table below its title in bold."""
        rule = ["---"] * self.names + ["---:"] * (len(self.columns) - self.names)
        body = "\n".join(f"| {' | '.join(row)} |" for row in (self.columns, rule, *self.rows))
        return "\n\n".join(filter(None, [f"**{self.title}**", body, self.note]))


def show(tables: Iterable[Table]) -> None:
    """Print to stdout: drawn on a terminal, plain text elsewhere."""
    if not sys.stdout.isatty():
        print("\n\n".join(table.plain() for table in tables))
        return
    import rich.box
    import rich.console
    import rich.table

    console = rich.console.Console()
    for table in tables:
        drawn = rich.table.Table(
            title=table.title,
            title_justify="left",
            caption=table.note or None,
            caption_justify="left",
            box=rich.box.SIMPLE_HEAD,
        )
        for place, column in enumerate(table.columns):
            drawn.add_column(column, justify="left" if place < table.names else "right")
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)


def replace_in_readme(readme: str, markdown: str) -> str:
    """The text with what is between the two markers replaced.

    Raises:
        ValueError: a marker is missing.
    """
    before, start, rest = readme.partition(README_START)
    _, end, after = rest.partition(README_END)
    if not start or not end:
        raise ValueError(f"no {README_START} … {README_END}")
    return f"{before}{start}\n{markdown.strip()}\n{end}{after}"
