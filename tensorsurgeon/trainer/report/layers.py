"""Layers: how far each has moved and how strong its gradients were, as maps of layer by time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tensorsurgeon.trainer.report.axes import SIZE, amount, axis_of, significant
from tensorsurgeon.trainer.report.events import LayerForm
from tensorsurgeon.trainer.report.history import History
from tensorsurgeon.trainer.report.markup import Markup, joined, short, tag

LEVELS = 16
"""Shades of a map."""

_MOST_COLUMNS = 48
_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

Row = Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class LayerMap:
    """A number of each layer at several moments.

    Attributes:
        key: its id in the page.
        title: what it shows.
        unit: of the values, as words.
        layers: what each layer is.
        tokens: at each moment.
        columns: for each moment the value of each layer; None where there is none.
        note: a sentence below.
    """

    key: str
    title: str
    unit: str
    layers: Sequence[LayerForm]
    tokens: Sequence[int]
    columns: Sequence[Row]
    note: str = ""

    def draw(self) -> Markup:
        """The map as a figure of the page: kinds, the map itself, and bars of its last column."""
        tokens, columns = _fewer(self.tokens, self.columns)
        known = sorted(value for row in columns for value in row if value is not None)
        # Of a few values far above the others, the shade is the darkest.
        top = known[(len(known) - 1) * 99 // 100] if known else 0.0
        height = min(max(12 * len(self.layers), 72), 480)
        seams = _seam_lines(self.layers)
        parts = (
            self._kinds(seams),
            self._plot(tokens, columns, top, seams) if len(columns) > 1 else None,
            self._bars(columns[-1], seams),
        )
        heading = tag("h3", self.title, tag("span", f" {self.unit}", class_="unit"))
        style = "map" if len(columns) > 1 else "map single"
        return tag(
            "figure",
            tag("figcaption", heading, _scale(top, known) if len(columns) > 1 else None),
            tag("div", *parts, class_=style, style=f"--height:{height}px"),
            tag("p", self.note, class_="note") if self.note else None,
            class_="chart",
            id=self.key,
        )

    def _kinds(self, seams: str) -> Markup:
        """The column of what each layer is, with the layers' indices."""
        count = len(self.layers)
        drawn = (
            tag("rect", y=start, width=1, height=stop - start, class_=f"kind {kind}")
            for start, stop, kind in _kind_runs(self.layers)
        )
        ticks = (
            tag("span", str(layer), class_="y", style=f"top:{short(100 * (layer + 0.5) / count)}%")
            for layer in ticks_of(count)
        )
        svg = tag(
            "svg",
            *drawn,
            tag("path", d=seams.replace(short(SIZE), "1"), class_="seam"),
            viewBox=f"0 0 1 {count}",
            preserveAspectRatio="none",
            aria_hidden="true",
        )
        return tag("div", svg, *ticks, class_="kinds", aria_hidden="true")

    def _plot(
        self, tokens: Sequence[int], columns: Sequence[Row], top: float, seams: str
    ) -> Markup:
        count = len(self.layers)
        shades = (
            tag("path", d=path, class_=f"s{level}") for level, path in _shades(columns, top).items()
        )
        scale = f"scale({short(SIZE / len(columns))} 1) translate(0 .5)"
        ends = [amount(tokens[0]), amount(tokens[-1])]
        ticks = (
            tag("span", label, class_=f"x {side}", aria_hidden="true")
            for label, side in zip(ends, ("first", "last"), strict=True)
        )
        svg = tag(
            "svg",
            tag("title", f"{self.title}, {self.unit}", id=f"{self.key}-title"),
            tag("desc", self._description(tokens, columns), id=f"{self.key}-desc"),
            tag("g", *shades, transform=scale, class_="shades"),
            tag("path", d=seams, class_="seam"),
            viewBox=f"0 0 {short(SIZE)} {count}",
            preserveAspectRatio="none",
            role="img",
            aria_labelledby=f"{self.key}-title",
            aria_describedby=f"{self.key}-desc",
        )
        return tag(
            "div",
            svg,
            *ticks,
            class_="plot cells",
            data_columns=" ".join(map(amount, tokens)),
            data_rows=count,
            data_top=f"{_largest(columns):.6g}",
            data_values=_packed(columns),
        )

    def _bars(self, row: Row, seams: str) -> Markup:
        axis = axis_of((value for value in row if value is not None), zero=True, margin=0, count=2)
        kinds: dict[str, list[str]] = {}
        for layer, value in enumerate(row):
            if value is not None:
                bar = f"M0 {layer}.15H{short(axis.at(value))}v.7H0z"
                kinds.setdefault(kind_of(self.layers[layer]), []).append(bar)
        bars = (tag("path", d="".join(path), class_=f"bar {kind}") for kind, path in kinds.items())
        grid = "".join(f"M{short(axis.at(tick))} 0V{len(row)}" for tick in axis.ticks)
        ticks = (
            tag("span", label, class_="x", style=f"left:{short(axis.percent(tick))}%")
            for tick, label in zip(axis.ticks, axis.labels, strict=True)
        )
        svg = tag(
            "svg",
            tag("title", f"{self.title} at the end, by layer", id=f"{self.key}-bars"),
            tag("path", d=grid, class_="grid"),
            *bars,
            tag("path", d=seams, class_="seam"),
            viewBox=f"0 0 {short(SIZE)} {len(row)}",
            preserveAspectRatio="none",
            role="img",
            aria_labelledby=f"{self.key}-bars",
        )
        return tag("div", svg, *ticks, class_="bars")

    def _description(self, tokens: Sequence[int], columns: Sequence[Row]) -> str:
        last = [(value, layer) for layer, value in enumerate(columns[-1]) if value is not None]
        begin = f"{len(self.layers)} layers at {len(columns)} moments up to {amount(tokens[-1])} "
        if not last:
            return begin + "tokens; nothing is on record at the last."
        (least, lowest), (most, highest) = min(last), max(last)
        return begin + (
            f"tokens. At the last, least in layer {lowest} with {significant(least)}, "
            f"most in layer {highest} with {significant(most)}."
        )


def layer_figures(history: History) -> Markup | None:
    """Movement and gradients of all layers, and both in numbers; None where there are none."""
    events, layers = history.layers, history.run.layers
    if not events or not layers:
        return None
    tokens = [history.tokens_at(event.step) for event in events]
    moved = LayerMap(
        key="moved",
        title="How far each layer moved",
        unit="as a share of its norm",
        layers=layers,
        tokens=tokens,
        columns=[event.moved for event in events],
    )
    # Before the first step no layer has a gradient.
    after = [event for event in events if any(norm is not None for norm in event.gradient_norms)]
    frozen = any(None in event.gradient_norms for event in after)
    gradients = LayerMap(
        key="gradients",
        title="Gradient norm of each layer",
        unit="before clipping",
        layers=layers,
        tokens=[history.tokens_at(event.step) for event in after],
        columns=[event.gradient_norms for event in after],
        note="Blank: no gradient, as in a layer that is frozen." if frozen else "",
    )
    return joined(
        _kinds_legend(layers),
        tag("div", moved.draw(), gradients.draw() if after else None, class_="pair"),
        _table(history),
    )


def kind_of(layer: LayerForm) -> str:
    """What became of a layer: `new`, `merged` or `copied`."""
    if layer.new:
        return "new"
    return "merged" if len(layer.sources) > 1 else "copied"


def origin_of(layer: LayerForm) -> str:
    """Where a layer came from, in words."""
    return " + ".join(f"{source} {index}" for source, index in layer.sources) or "nowhere"


def ticks_of(count: int) -> list[int]:
    """Layers whose index is written beside a map: the first, the last, and round ones between."""
    step = next(step for step in (1, 2, 4, 8, 16, 32, 64, 10**9) if count / step <= 20)
    inner = [layer for layer in range(0, count, step) if count - 1 - layer >= step * 0.75]
    return [*inner, count - 1]


def _kind_runs(layers: Sequence[LayerForm]) -> Iterator[tuple[int, int, str]]:
    start = 0
    for stop in range(1, len(layers) + 1):
        if stop == len(layers) or kind_of(layers[stop]) != kind_of(layers[start]):
            yield start, stop, kind_of(layers[start])
            start = stop


def _seam_lines(layers: Sequence[LayerForm]) -> str:
    """Where two layers meet that did not before: above each layer at a seam."""
    seams = (layer for layer, form in enumerate(layers) if form.seam)
    return "".join(f"M0 {layer}H{short(SIZE)}" for layer in seams)


def _fewer(tokens: Sequence[int], columns: Sequence[Row]) -> tuple[list[int], list[Row]]:
    """At most `_MOST_COLUMNS` moments, evenly apart, the first and the last among them."""
    count = len(columns)
    wanted = min(count, _MOST_COLUMNS)
    picked = [i * (count - 1) // max(wanted - 1, 1) for i in range(wanted)]
    return [tokens[i] for i in picked], [columns[i] for i in picked]


def _shades(columns: Sequence[Row], top: float) -> dict[int, str]:
    """For each shade a path of strokes one layer thick; equal neighbours are one stroke."""
    strokes: dict[int, list[str]] = {}
    for layer in range(len(columns[0])):
        start = 0
        shades = [_shade(row[layer], top) for row in columns]
        for stop in range(1, len(shades) + 1):
            if stop == len(shades) or shades[stop] != shades[start]:
                if (shade := shades[start]) is not None:
                    strokes.setdefault(shade, []).append(f"M{start} {layer}h{stop - start}")
                start = stop
    return {shade: "".join(strokes[shade]) for shade in sorted(strokes)}


def _shade(value: float | None, top: float) -> int | None:
    if value is None:
        return None
    return min(int(value / top * LEVELS), LEVELS - 1) if top > 0 else 0


def _largest(columns: Sequence[Row]) -> float:
    return max((value for row in columns for value in row if value is not None), default=0.0)


def _packed(columns: Sequence[Row]) -> str:
    """All values for the script, row by row: each two digits to base 64 as a share of the largest.

    What is not there is two dots.
    """
    largest = _largest(columns)
    digits = []
    for layer in range(len(columns[0])):
        for row in columns:
            value = row[layer]
            if value is None:
                digits.append("..")
            else:
                share = round(4095 * min(max(value / largest, 0.0), 1.0)) if largest else 0
                digits.append(_DIGITS[share >> 6] + _DIGITS[share & 63])
    return "".join(digits)


def _scale(top: float, known: Sequence[float]) -> Markup:
    """What the shades mean."""
    more = "≥ " if known and known[-1] > top else ""
    bar = tag("span", *(tag("i", class_=f"b{level}") for level in range(LEVELS)), class_="bar")
    return tag("p", "0 ", bar, f" {more}{significant(top)}", class_="scale")


def _kinds_legend(layers: Sequence[LayerForm]) -> Markup:
    words = {
        "copied": "copied layer",
        "merged": "merged layer",
        "new": "new layer, its output zero at first",
    }
    present = {kind_of(layer) for layer in layers}
    entries = [
        tag("li", tag("i", class_=f"swatch {kind}"), text)
        for kind, text in words.items()
        if kind in present
    ]
    if any(layer.seam for layer in layers):
        entries.append(tag("li", tag("i", class_="swatch seam"), "seam: new neighbours meet"))
    return tag("ul", *entries, class_="legend")


def _table(history: History) -> Markup:
    """Every layer in numbers."""
    last = history.layers[-1]
    rows = []
    for layer, form in enumerate(history.run.layers):
        norm, moved = last.gradient_norms[layer], last.moved[layer]
        marks = kind_of(form) + (", at a seam" if form.seam else "")
        cells = (origin_of(form), marks, _number(moved), _number(norm))
        header = tag("th", str(layer), scope="row")
        rows.append(tag("tr", header, *(tag("td", cell) for cell in cells)))
    names = ("Layer", "Origin", "Kind", "Moved", "Gradient norm")
    head = tag("tr", *(tag("th", name, scope="col") for name in names))
    at = f"Each layer in numbers, at step {last.step:,}"
    table = tag("table", tag("thead", head), tag("tbody", *rows), id="layer-table")
    return tag("details", tag("summary", at), tag("div", table, class_="wide"))


def _number(value: float | None) -> str:
    return "none" if value is None else significant(value)
