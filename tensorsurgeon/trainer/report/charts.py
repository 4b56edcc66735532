"""Line charts: a drawing in SVG that stretches, with its labels as text of the page around it.

A drawing scaled down to a telephone would take its labels along, too small to read. So the drawing
holds lines alone, whose width does not scale, and labels are placed beside it by percentages.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tensorsurgeon.trainer.report.axes import SIZE, Axis, significant
from tensorsurgeon.trainer.report.markup import Markup, joined, short, tag
from tensorsurgeon.trainer.report.series import Series, thinned

MOST_POINTS = 1500
"""Of one line; a screen is no wider."""

_MOST_GLYPHS = 100
_MOST_MARKERS = 60


@dataclass(frozen=True, kw_only=True)
class Line:
    """A series as a line.

    Attributes:
        name: what it is, for the legend.
        series: its points.
        style: classes of the style sheet: `c0` and so on for the run, `raw`, `smooth`, `held`.
        marked: whether each point gets a marker, as long as they are few.
        labelled: whether its last value is written at its end.
    """

    name: str
    series: Series
    style: str
    marked: bool = False
    labelled: bool = False


@dataclass(frozen=True, kw_only=True)
class Level:
    """A value as a horizontal line over the whole chart."""

    name: str
    value: float
    style: str = "base"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A moment as a vertical line; the label is written at it, the name in the legend."""

    x: float
    name: str
    label: str = ""
    style: str = "resumed"


@dataclass(frozen=True, kw_only=True)
class Glyphs:
    """Single points that stand out, each as a character; those above the axis at its end."""

    name: str
    series: Series
    character: str
    style: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A line chart.

    Attributes:
        key: its id in the page.
        title: what it shows.
        unit: of the values, as words.
        note: a sentence below; may be empty.
        height: a class of the style sheet: `tall`, `middle` or none.
        legend: to be shown instead of one of the lines' names.
    """

    key: str
    title: str
    unit: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    levels: Sequence[Level] = ()
    marks: Sequence[Mark] = ()
    glyphs: Sequence[Glyphs] = ()
    note: str = ""
    height: str = ""
    legend: Markup | None = None

    def draw(self) -> Markup:
        """The chart as a figure of the page."""
        ends = self._ends()
        plot = tag(
            "div",
            self._drawing(),
            *self._ticks(),
            *self._labels(),
            *ends,
            class_="plot",
            data_x=_range(self.x),
            data_y=_range(self.y),
        )
        frame = " ".join(["frame", self.height, *(["labelled"] if ends else [])])
        heading = tag("h3", self.title, tag("span", f" {self.unit}", class_="unit"))
        return tag(
            "figure",
            tag("figcaption", heading, self._legend() if self.legend is None else self.legend),
            tag("div", plot, class_=frame),
            tag("p", self.note, class_="note") if self.note else None,
            class_="chart",
            id=self.key,
        )

    def _drawing(self) -> Markup:
        size = short(SIZE)
        grid = "".join(f"M0 {self._y(tick)}H{size}" for tick in self.y.ticks)
        levels = (
            tag("path", d=f"M0 {self._y(level.value)}H{size}", class_=f"level {level.style}")
            for level in self.levels
        )
        marks = (
            tag("path", d=f"M{self._x(mark.x)} 0V{size}", class_=f"mark {mark.style}")
            for mark in self.marks
        )
        return tag(
            "svg",
            tag("title", f"{self.title}, {self.unit}", id=f"{self.key}-title"),
            tag("desc", self._description(), id=f"{self.key}-desc"),
            tag("path", d=grid, class_="grid"),
            *marks,
            *(self._line(line) for line in self.lines if line.series),
            *levels,
            *(self._markers(line) for line in self.lines if _is_marked(line)),
            viewBox=f"0 0 {size} {size}",
            preserveAspectRatio="none",
            role="img",
            aria_labelledby=f"{self.key}-title",
            aria_describedby=f"{self.key}-desc",
        )

    def _x(self, value: float) -> str:
        return _coordinate(self.x.at(value))

    def _y(self, value: float) -> str:
        return _coordinate(SIZE - self.y.at(value))

    def _points(self, series: Series) -> list[str]:
        return [f"{self._x(x)} {self._y(y)}" for x, y in zip(series.xs, series.ys, strict=True)]

    def _line(self, line: Line) -> Markup:
        points = self._points(thinned(line.series, MOST_POINTS))
        # A lone point is a line of no length, which a round end makes a dot.
        path = "M" + " ".join(points if len(points) > 1 else points * 2)
        style = f"line {line.style}" + (" lone" if len(points) == 1 else "")
        return tag("path", d=path, class_=style, data_name=line.name)

    def _markers(self, line: Line) -> Markup:
        points = self._points(line.series)
        dots = "".join(f"M{point}h0" for point in points)
        ring = tag("path", d=dots, class_=f"ring {line.style}")
        return joined(ring, tag("path", d=dots, class_="hole"))

    def _ticks(self) -> Iterator[Markup]:
        for value, label in zip(self.y.ticks, self.y.labels, strict=True):
            top = f"top:{short(100 - self.y.percent(value))}%"
            yield tag("span", label, class_="y", style=top, aria_hidden="true")
        for value, label in zip(self.x.ticks, self.x.labels, strict=True):
            left = f"left:{short(self.x.percent(value))}%"
            yield tag("span", label, class_="x", style=left, aria_hidden="true")

    def _labels(self) -> Iterator[Markup]:
        for mark in self.marks:
            if mark.label:
                place = self.x.percent(mark.x)
                side = f"right:{short(100 - place)}%" if place > 55 else f"left:{short(place)}%"
                yield tag("span", mark.label, class_=f"at {mark.style}", style=side)
        for glyphs in self.glyphs:
            few = thinned(glyphs.series, _MOST_GLYPHS)
            for x, y in zip(few.xs, few.ys, strict=True):
                left, top = short(self.x.percent(x)), short(100 - self.y.percent(y))
                yield tag(
                    "span",
                    glyphs.character,
                    class_=f"glyph {glyphs.style}",
                    style=f"left:{left}%;top:{top}%",
                    aria_hidden="true",
                )

    def _ends(self) -> list[Markup]:
        """The last values of lines, and levels, written at the right and kept apart."""
        wanted = [
            (self.y.percent(line.series.ys[-1]), line.series.ys[-1], line.style)
            for line in self.lines
            if line.labelled and line.series
        ]
        if not wanted:
            return []
        wanted += [(self.y.percent(lv.value), lv.value, lv.style) for lv in self.levels]
        wanted.sort(reverse=True)
        tops = kept_apart(
            [100 - place for place, _, _ in wanted], least=5.5 if self.height == "tall" else 8
        )
        return [
            tag("span", f"{value:.3f}", class_=f"end {style}", style=f"top:{short(top)}%")
            for top, (_, value, style) in zip(tops, wanted, strict=True)
        ]

    def _legend(self) -> Markup | None:
        """What is drawn; a line that is what the title says goes without."""
        lines = [line for line in self.lines if line.series]
        alone = len(lines) == 1 and lines[0].name == self.title
        entries = [] if alone else [(line_sample(line), line.name) for line in lines]
        entries += [(sample(f"level {level.style}"), level.name) for level in self.levels]
        entries += [(sample(f"mark {mark.style}"), mark.name) for mark in self.marks]
        entries += [
            (tag("span", glyphs.character, class_=f"glyph {glyphs.style}"), glyphs.name)
            for glyphs in self.glyphs
            if glyphs.series
        ]
        return legend(entries)

    def _description(self) -> str:
        """The chart in words."""
        sentences = [_in_words(line, self.x, self.y) for line in self.lines if line.series]
        sentences += [f"{lv.name}: {_written(lv.value, self.y)}." for lv in self.levels]
        sentences += [f"{m.name} at {_written(m.x, self.x)} tokens." for m in self.marks]
        return " ".join(sentences) or "Nothing is on record."


def kept_apart(places: Sequence[float], least: float) -> list[float]:
    """Rising places from 0 to 100, moved as little as needed to be `least` apart."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + least) if moved else place)
    limit = 100.0
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - least
    return moved


def _in_words(line: Line, x: Axis, y: Axis) -> str:
    xs, ys = line.series.xs, line.series.ys
    if len(xs) == 1:
        return f"{line.name}: {_written(ys[0], y)} at {_written(xs[0], x)} tokens."
    return (
        f"{line.name}: from {_written(ys[0], y)} at {_written(xs[0], x)} tokens to "
        f"{_written(ys[-1], y)} at {_written(xs[-1], x)}; lowest {_written(min(ys), y)}, "
        f"highest {_written(max(ys), y)}."
    )


def _written(value: float, axis: Axis) -> str:
    return f"{significant(value / axis.divisor, 4)}{axis.suffix}" if value else "0"


def _range(axis: Axis) -> str:
    """An axis for the script: where it begins and ends as it is written, and the suffix."""
    low, high = axis.low / axis.divisor, axis.high / axis.divisor
    return f"{low:.9g} {high:.9g} {axis.suffix.strip()}"


def _coordinate(place: float) -> str:
    text = f"{place:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _is_marked(line: Line) -> bool:
    return line.marked and 0 < len(line.series.xs) <= _MOST_MARKERS


def legend(entries: Sequence[tuple[Markup, str]]) -> Markup | None:
    """Samples and what they are, each once; None where there are none."""
    items = (tag("li", drawn, name) for drawn, name in dict.fromkeys(entries))
    return tag("ul", *items, class_="legend") if entries else None


def line_sample(line: Line) -> Markup:
    """A bit of a line, for the legend."""
    return sample(f"line {line.style}", marked=_is_marked(line))


def sample(style: str, *, marked: bool = False) -> Markup:
    """A bit of anything drawn in a style."""
    rings = (
        [tag("path", d="M13 5h0", class_=f"ring {style}"), tag("path", d="M13 5h0", class_="hole")]
        if marked
        else []
    )
    line = tag("path", d="M1 5H25", class_=style)
    return tag("svg", line, *rings, class_="sample", viewBox="0 0 26 10", aria_hidden="true")
