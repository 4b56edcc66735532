"""Seams: how unlike its accustomed input a layer's input is, before and during training."""

from tensorsurgeon.trainer.report.axes import Axis, axis_of
from tensorsurgeon.trainer.report.charts import Chart, Level, Line
from tensorsurgeon.trainer.report.events import SeamForm
from tensorsurgeon.trainer.report.history import History
from tensorsurgeon.trainer.report.markup import Markup, joined, tag
from tensorsurgeon.trainer.report.series import Series

_MOST_NAMED = 6
"""Seams that get a colour each; more cannot be told apart."""


def seam_figures(history: History, x: Axis) -> Markup | None:
    """Cosine and norm ratio of all seams over tokens, and a table; None where there are none."""
    events = [event for event in history.seams if event.seams]
    if not events:
        return None
    first = sorted(events[0].seams, key=lambda s: 1.0 if s.cosine is None else s.cosine)
    named = sorted(seam.layer for seam in first[:_MOST_NAMED])
    charts = (
        _chart(history, named, "cosine", "Cosine to the accustomed input", x),
        _chart(history, named, "norm_ratio", "Norm over that of the accustomed input", x),
    )
    pair = tag("div", *charts, class_="pair")
    steps = (events[0].step, events[-1].step)
    return joined(pair, _table(events[0].seams, events[-1].seams, steps))


def _chart(history: History, named: list[int], key: str, title: str, x: Axis) -> Markup:
    points: dict[int, list[tuple[int, float]]] = {}
    for event in history.seams:
        for seam in event.seams:
            if (value := getattr(seam, key)) is not None:
                points.setdefault(seam.layer, []).append((history.tokens_at(event.step), value))
    series = {
        layer: Series(xs=[x for x, _ in found], ys=[y for _, y in found])
        for layer, found in sorted(points.items())
    }
    lines = [
        Line(name="other seams", series=series[layer], style="other")
        for layer in series
        if layer not in named
    ]
    lines += [
        Line(name=f"layer {layer}", series=series[layer], style=f"c{index} smooth", marked=True)
        for index, layer in enumerate(named)
        if layer in series
    ]
    values = [value for found in series.values() for value in found.ys]
    return Chart(
        key=f"seam-{key}",
        title=title,
        unit="1 is the same",
        x=x,
        y=axis_of([*values, 1.0], count=4),
        lines=lines,
        levels=[Level(name="as in its own model", value=1.0)],
    ).draw()


def _table(
    before: tuple[SeamForm, ...], after: tuple[SeamForm, ...], steps: tuple[int, int]
) -> Markup:
    """Every seam at the first and at the last moment on record."""
    first, last = ({seam.layer: seam for seam in seams} for seams in (before, after))
    rows = []
    for index, seam in sorted((first | last).items()):  # a run that went on may measure more
        ends = (first.get(index), last.get(index))
        cosines = [end.cosine if end else None for end in ends]
        ratios = [end.norm_ratio if end else None for end in ends]
        cells = (tag("td", _number(value), class_="number") for value in (*cosines, *ratios))
        source, layer = seam.original
        header = tag("th", str(index), scope="row")
        rows.append(tag("tr", header, tag("td", f"{source} {layer}"), *cells))
    first_step, last_step = (f"step {step:,}" for step in steps)
    groups = tag(
        "tr",
        tag("th", "Layer", scope="col", rowspan=2),
        tag("th", "Is of", scope="col", rowspan=2),
        tag("th", "Cosine", scope="colgroup", colspan=2, class_="number"),
        tag("th", "Norm ratio", scope="colgroup", colspan=2, class_="number"),
    )
    names = (first_step, last_step) * 2
    head = tag("tr", *(tag("th", name, scope="col", class_="number") for name in names))
    caption = tag("caption", "The input at each seam beside the one the layer was trained on")
    table = tag("table", caption, tag("thead", groups, head), tag("tbody", *rows))
    return tag("div", table, class_="wide")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
