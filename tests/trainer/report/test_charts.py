"""Labels at the end of lines do not lie on each other, and go no further than they must."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorsurgeon.trainer.report.axes import axis_of
from tensorsurgeon.trainer.report.charts import Chart, Glyphs, Level, Line, Mark, kept_apart
from tensorsurgeon.trainer.report.layers import ticks_of
from tensorsurgeon.trainer.report.markup import Markup, short, tag
from tensorsurgeon.trainer.report.series import Series
from tests.trainer.report.pages import parsed


@given(st.lists(st.floats(0, 100), max_size=12).map(sorted))
def test_places_kept_apart_are_apart_and_on_the_plot(places: list[float]) -> None:
    found = kept_apart(places, 8)
    assert all(b - a >= 8 - 1e-9 for a, b in itertools.pairwise(found))
    assert all(place <= 100 for place in found)


def test_places_that_are_apart_stay() -> None:
    assert kept_apart([3.0, 40.0, 99.0], 8) == [3.0, 40.0, 99.0]


@given(st.integers(1, 300))
def test_layers_written_beside_a_map_are_few_and_hold_the_first_and_the_last(count: int) -> None:
    found = ticks_of(count)
    assert found[0] == 0
    assert found[-1] == count - 1
    assert len(found) <= 22
    assert found == sorted(set(found))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.001, "0"), (-0.5, "-0.5"), (10.0, "10"), (2.345, "2.35"), (100, "100")],
)
def test_numbers_in_attributes_are_short(value: float, text: str) -> None:
    assert short(value) in (text, "2.34")  # a tie of binary fractions


def test_texts_are_escaped_and_markup_is_not() -> None:
    inner = tag("b", "<i>", title='"')
    assert inner == '<b title="&quot;">&lt;i&gt;</b>'
    assert tag("p", inner, None, "&", class_="x", hidden=True, data_a=None) == (
        f'<p class="x" hidden>{inner}&amp;</p>'
    )
    assert tag("p", str(inner + "")) != tag("p", Markup(inner))


def test_chart_says_in_words_what_it_shows() -> None:
    xs, ys = [0, 1e6, 2e6], [6.0, 1.5, 2.0]
    drawing = Chart(
        key="k",
        title="Loss",
        unit="nats",
        x=axis_of(xs, unit="count", margin=0),
        y=axis_of(ys),
        lines=[Line(name="run", series=Series(xs=xs, ys=ys), style="c0")],
        levels=[Level(name="base", value=2.5)],
        marks=[Mark(x=1e6, name="resumed")],
        glyphs=[Glyphs(name="skipped", series=Series(), character="x", style="skipped")],
    ).draw()
    words = parsed(drawing).one("k-desc").text
    assert words == (
        "run: from 6.000 at 0 tokens to 2.000 at 2.000M; lowest 1.500, highest 6.000. "
        "base: 2.500. resumed at 1.000M tokens."
    )
    legend = parsed(drawing).all("ul", "legend")[0].text.split()
    assert legend == ["run", "base", "resumed"]
