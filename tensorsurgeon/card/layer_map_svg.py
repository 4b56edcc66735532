"""The layer map as a picture: a row of cells for each source, bands down to the result's row.

A picture of its own background, so that it reads on light pages and dark ones; no script, no
style sheet, no font but the generic ones, nothing from elsewhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tensorsurgeon.card.escaping import xml_text
from tensorsurgeon.errors import shortened
from tensorsurgeon.specs import LayerOrigin

LIMIT = 20_000
"""Bytes beyond which bands are left out: a picture is looked at, and no map has that many runs."""

_COLORS = (
    *("#3b74b9", "#d9822b", "#3f9a6c", "#8f62b3", "#c3533f", "#2b98a3", "#b3962a", "#c9669b"),
)
_INK, _MUTED, _EDGE, _PAPER = "#1f2937", "#6b7280", "#d5dae1", "#fbfcfd"

_MARGIN = 28
_WIDEST = 960
_NARROWEST = 520
_CELL = 34.0
"""Pixels of the widest cell."""

_ROW, _LABEL, _GAP, _FALL = 24, 24, 20, 64
_STRIPE = 11
_MOST_ROWS = 12
_MOST_CURVES = 60
_DIGIT = 6.4
"""Pixels that a digit takes at the size of the rows' own text."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What stands above a source's row.

    Attributes:
        name: the source's name in the recipe.
        detail: the repository or the folder it was read from.
        depth: how many layers it has.
    """

    name: str
    detail: str
    depth: int


def layer_map_svg(
    layer_map: Sequence[LayerOrigin], seams: Sequence[int], rows: Mapping[str, Row]
) -> str:
    """Draw a layer map.

    Args:
        layer_map: where each layer of the result came from.
        seams: layers that get another input than in their source.
        rows: the sources by their names in the map, in the order to draw them.
    """
    used = {source.source for origin in layer_map for source in origin.sources}
    shown = [row for name, row in rows.items() if name in used]
    drawing = _Drawing(layer_map, seams, shown[:_MOST_ROWS], len(shown) - _MOST_ROWS)
    picture = drawing.svg(bands=True)
    return picture if len(picture.encode()) < LIMIT else drawing.svg(bands=False)


class _Drawing:
    def __init__(
        self,
        layer_map: Sequence[LayerOrigin],
        seams: Sequence[int],
        rows: Sequence[Row],
        left_out: int,
    ) -> None:
        self._map, self._seams, self._rows, self._left_out = layer_map, set(seams), rows, left_out
        self._runs = list(_runs(layer_map, self._seams))
        widest = max([1, len(layer_map), *(row.depth for row in rows)])
        # Whole tenths, as everything is written, so that no rounding adds up along a row.
        self._cell = min(_CELL, max((_WIDEST - 2 * _MARGIN) * 10 // widest, 1) / 10)
        self._width = max(_NARROWEST, round(widest * self._cell) + 2 * _MARGIN)
        self._colors = {row.name: _COLORS[i % len(_COLORS)] for i, row in enumerate(rows)}
        self._tops = {row.name: _row_top(i) for i, row in enumerate(rows)}
        stripes = max((len(origin.sources) for origin in layer_map), default=1)
        self._height_of_result = max(_ROW, min(stripes, _MOST_ROWS) * _STRIPE)
        self._top_of_result = _row_top(len(rows) - 1) + _ROW + _FALL

    def svg(self, *, bands: bool) -> str:
        """The whole picture."""
        below = self._top_of_result + self._height_of_result
        height = below + 58
        inside = [
            *([self._hatching()] if any(origin.new for origin in self._map) else []),
            f'<rect x=".5" y=".5" width="{self._width - 1}" height="{height - 1}" rx="10" '
            f'fill="{_PAPER}" stroke="{_EDGE}"/>',
            *(self._bands() if bands else ()),
            *(part for row in self._rows for part in self._source(row)),
            *self._result(),
            *self._marks(),
            *self._legend(below + 40),
        ]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self._width}" height="{height}" '
            f'viewBox="0 0 {self._width} {height}" role="img" aria-labelledby="title desc" '
            f'font-family="sans-serif" font-size="11" fill="{_INK}">\n'
            f'<title id="title">Layer map: {len(self._map)} layers</title>\n'
            f'<desc id="desc">{xml_text(self._description(), 4000)}</desc>\n'
            + "\n".join(inside)
            + "\n</svg>\n"
        )

    def _x(self, layer: int) -> float:
        return _MARGIN + layer * self._cell

    def _hatching(self) -> str:
        """Stripes for what is new."""
        return (
            '<defs><pattern id="new" width="6" height="6" patternUnits="userSpaceOnUse" '
            f'patternTransform="rotate(45)"><rect width="3.4" height="6" fill="{_PAPER}" '
            'fill-opacity=".78"/></pattern></defs>'
        )

    def _bands(self) -> Iterator[str]:
        """From each run of source layers to where it lies in the result, behind all rows."""
        found: dict[str, list[str]] = {row.name: [] for row in self._rows}
        shade = ".24" if all(len(origin.sources) == 1 for origin in self._map) else ".17"
        curved = sum(len(self._map[start].sources) for start, _ in self._runs) <= _MOST_CURVES
        y, end = 0.0, self._top_of_result
        for start, stop in self._runs:
            for source in self._map[start].sources:
                if source.source not in found:
                    continue
                y = self._tops[source.source] + _ROW
                a, b = self._x(source.layer), self._x(source.layer + stop - start)
                c, d = self._x(start), self._x(stop)
                middle = _n((max(y, end - _FALL) + end) / 2)
                fall = _n(max(y, end - _FALL))
                if curved:
                    path = (
                        f"M{_n(a)} {y}V{fall}C{_n(a)} {middle} {_n(c)} {middle} {_n(c)} {end}"
                        f"H{_n(d)}C{_n(d)} {middle} {_n(b)} {middle} {_n(b)} {fall}V{y}Z"
                    )
                else:
                    path = f"M{_n(a)} {y}V{fall}L{_n(c)} {end}H{_n(d)}L{_n(b)} {fall}V{y}Z"
                found[source.source].append(path)
        for name, paths in found.items():
            drawn = [f'<path d="{path}"/>' for path in paths] if curved else []
            drawn = drawn or [f'<path d="{"".join(paths)}"/>']
            yield f'<g fill="{self._colors[name]}" fill-opacity="{shade}">{"".join(drawn)}</g>'

    def _source(self, row: Row) -> Iterator[str]:
        top, color = self._tops[row.name], self._colors[row.name]
        width = row.depth * self._cell
        most = int((self._width - 2 * _MARGIN) / 7.2) - 14
        name = xml_text(row.name, min(40, most // 2))
        detail = xml_text(row.detail, max(most - len(row.name[:40]), 16))
        layers = f"{row.depth} layer{'s' * (row.depth != 1)}"
        yield (
            f'<text x="{_MARGIN}" y="{top - 8}" font-size="13"><tspan font-weight="bold">{name}'
            f'</tspan><tspan dx="9" fill="{_MUTED}">{detail}, {layers}</tspan></text>'
        )
        yield self._bar(0, width, top, _ROW, _PAPER)
        yield self._bar(0, width, top, _ROW, color, ' fill-opacity=".3"')
        taken = sorted({s.layer for o in self._map for s in o.sources if s.source == row.name})
        boxes = (self._box(first, last, top, _ROW) for first, last in _stretches(taken))
        yield f'<path d="{"".join(boxes)}" fill="{color}"/>'
        yield self._cuts(row.depth, top, _ROW)
        if self._cell >= 15 or (len(taken) == row.depth and width > 60):
            y = top + _ROW / 2 + 4
            yield self._ends("0", str(row.depth - 1), width, y, taken, row.depth)

    def _ends(
        self, first: str, last: str, width: float, y: float, taken: list[int], depth: int
    ) -> str:
        """The first and the last index of a row, in it."""

        def written(text: str, x: float, layer: int, anchor: str = "") -> str:
            fill = "#fff" if layer in taken else _INK
            return f'<text x="{_n(x)}" y="{_n(y)}" fill="{fill}"{anchor}>{text}</text>'

        left = written(first, _MARGIN + 4, 0)
        end = ' text-anchor="end"'
        return left + written(last, _MARGIN + width - 4, depth - 1, end) if depth > 1 else left

    def _cuts(self, layers: int, top: float, height: float) -> str:
        """The lines between the cells of a row: one dashed line as thick as the row is high."""
        line = 1 if self._cell > 5 else 0.5
        if layers < 2:
            return ""
        return (
            f'<path d="M{_n(self._x(1) - line / 2)} {_n(top + height / 2)}'
            f'h{_n((layers - 1) * self._cell)}" stroke="{_PAPER}" stroke-width="{_n(height)}" '
            f'stroke-dasharray="{line} {_n(self._cell - line)}"/>'
        )

    def _bar(
        self, layer: int, width: float, top: float, height: float, fill: str, more: str = ""
    ) -> str:
        return (
            f'<rect x="{_n(self._x(layer))}" y="{_n(top)}" width="{_n(width)}" '
            f'height="{_n(height)}" fill="{fill}"{more}/>'
        )

    def _result(self) -> Iterator[str]:
        top, height = self._top_of_result, self._height_of_result
        boxes: dict[str, list[str]] = {}
        for start, stop in self._runs:
            origin = self._map[start]
            sources = origin.sources[:_MOST_ROWS]
            part = height / max(len(sources), 1)
            for index, source in enumerate(sources):
                color = self._colors.get(source.source, _MUTED)
                box = self._box(start, stop, top + index * part, part)
                boxes.setdefault(color, []).append(box)
            if origin.new:
                boxes.setdefault("url(#new)", []).append(self._box(start, stop, top, height))
        hatched = boxes.pop("url(#new)", [])
        for fill, drawn in [*boxes.items(), *([("url(#new)", hatched)] if hatched else [])]:
            yield f'<path d="{"".join(drawn)}" fill="{fill}"/>'
        yield self._cuts(len(self._map), top, height)
        for start, stop in self._runs:
            yield from self._range(start, stop)

    def _box(self, start: int, stop: int, top: float, height: float) -> str:
        x = _n(self._x(start))
        return f"M{x} {_n(top)}H{_n(self._x(stop))}v{_n(height)}H{x}z"

    def _range(self, start: int, stop: int) -> Iterator[str]:
        """Which source layers a run of the result is, written upon it where there is room."""
        origin = self._map[start]
        if len(origin.sources) != 1 or origin.new:
            return
        first, last = origin.sources[0].layer, origin.sources[0].layer + stop - start - 1
        text = str(first) if first == last else f"{first}-{last}"
        if len(text) * _DIGIT + 6 > (stop - start) * self._cell:
            return
        x = self._x(start) + (stop - start) * self._cell / 2
        middle = self._top_of_result + self._height_of_result / 2
        width = len(text) * _DIGIT + 4
        color = self._colors.get(origin.sources[0].source, _MUTED)
        yield (  # upon a patch, so that no line between cells goes through it
            f'<rect x="{_n(x - width / 2)}" y="{_n(middle - 8)}" width="{_n(width)}" height="16" '
            f'fill="{color}"/>'
            f'<text x="{_n(x)}" y="{_n(middle + 4)}" text-anchor="middle" fill="#fff">{text}</text>'
        )

    def _marks(self) -> Iterator[str]:
        """Seams, the result's own indices below it, and its caption."""
        top, below = self._top_of_result, self._top_of_result + self._height_of_result
        lines = "".join(f"M{_n(self._x(s))} {top - 5}V{below + 5}" for s in sorted(self._seams))
        if lines:
            thick = 2 if self._cell > 8 else 1
            yield f'<path d="{lines}" stroke="{_INK}" stroke-width="{thick}" fill="none"/>'
        last, free = len(self._map) - 1, 0.0
        keep = self._x(last) + self._cell / 2 - len(str(last)) * _DIGIT
        ticks = []
        for layer in (*(start for start, _ in self._runs), last) if self._map else ():
            x, half = self._x(layer) + self._cell / 2, len(str(layer)) * _DIGIT / 2 + 3
            if x - half < free or (layer != last and x + half > keep):
                continue
            free = x + half
            ticks.append(f'<text x="{_n(x)}" y="{below + 18}">{layer}</text>')
        if ticks:
            yield f'<g text-anchor="middle" fill="{_MUTED}">' + "".join(ticks) + "</g>"
        layers = f"{len(self._map)} layer{'s' * (len(self._map) != 1)}"
        more = f", {self._left_out} more sources are not drawn" if self._left_out > 0 else ""
        yield (
            f'<text x="{_MARGIN}" y="{below + 40}" font-size="13"><tspan font-weight="bold">result'
            f'</tspan><tspan dx="9" fill="{_MUTED}">{layers}{more}</tspan></text>'
        )

    def _legend(self, y: int) -> Iterator[str]:
        """What the marks mean, of those that are there."""
        entries = []
        if self._seams:
            mark = f'<path d="M{{x}} {y - 11}v14" stroke="{_INK}" stroke-width="2"/>'
            entries.append((mark, 8, "seam"))
        if any(origin.new for origin in self._map):
            box = f'<rect x="{{x}}" y="{y - 10}" width="16" height="12" fill="'
            color = self._colors[self._rows[0].name] if self._rows else _MUTED
            entries.append((f'{box}{color}"/>{box}url(#new)"/>', 24, "new, zeroed output"))
        x = self._width - _MARGIN
        for mark, width, text in entries:
            x -= width + round(len(text) * 5.8)
            yield mark.replace("{x}", str(x))
            yield f'<text x="{x + width}" y="{y}" fill="{_MUTED}">{text}</text>'
            x -= 20

    def _description(self) -> str:
        """The same in words, as far as they are few."""
        if len(self._runs) > 40:
            return f"{len(self._runs)} runs of layers."
        lines = []
        for start, stop in self._runs:
            origin = self._map[start]
            inside = " + ".join(
                f"{shortened(s.source, 40)} {_span(s.layer, s.layer + stop - start)}"
                for s in origin.sources[:_MOST_ROWS]
            )
            words = (("seam", start in self._seams), ("new, zeroed", origin.new))
            marks = ", ".join(word for word, on in words if on)
            lines.append(f"{_span(start, stop)}: {inside}" + (f" ({marks})" if marks else ""))
        return "Layers " + "; ".join(lines) + "."


def _row_top(index: int) -> int:
    return 20 + _LABEL + index * (_ROW + _LABEL + _GAP)


def _span(start: int, stop: int) -> str:
    return str(start) if stop - start == 1 else f"{start} to {stop - 1}"


def _stretches(layers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Sorted layers as half open ranges."""
    cuts = [i for i in range(1, len(layers)) if layers[i] != layers[i - 1] + 1]
    for begin, end in pairwise([0, *cuts, len(layers)]):
        yield layers[begin], layers[end - 1] + 1


def _runs(layer_map: Sequence[LayerOrigin], seams: set[int]) -> Iterator[tuple[int, int]]:
    starts = [
        layer
        for layer in range(len(layer_map))
        if layer == 0
        or layer in seams
        or not layer_map[layer].follows(layer_map[layer - 1])
        or layer_map[layer].new != layer_map[layer - 1].new
    ]
    return pairwise([*starts, len(layer_map)])


def _n(value: float) -> str:
    """A coordinate to a tenth of a pixel, without needless digits."""
    return f"{value:.1f}".rstrip("0").rstrip(".")
