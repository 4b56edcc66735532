"""What the steps say beside the loss: learning rate, gradients, preferences, speed, memory."""

from collections.abc import Iterator, Sequence

from tensorsurgeon.trainer.report.axes import Axis, axis_of, significant
from tensorsurgeon.trainer.report.charts import Chart, Glyphs, Line
from tensorsurgeon.trainer.report.history import History
from tensorsurgeon.trainer.report.losses import resumption_marks
from tensorsurgeon.trainer.report.markup import Markup, tag
from tensorsurgeon.trainer.report.series import Series

_REASONS = {
    "not finite": ("\N{MULTIPLICATION SIGN}", "skipped, not finite"),
    "spike": ("\N{BLACK UP-POINTING TRIANGLE}", "skipped, a spike"),
}


def optimisation_figures(history: History, x: Axis) -> Markup | None:
    """Learning rate and gradient norm, with the steps that were skipped; None before the first."""
    if not history.steps:
        return None
    rate, norm = history.series("learning_rate"), history.series("gradient_norm")
    y = axis_of(norm.ys, zero=True, robust=True, count=4)
    above = [value for value in norm.ys if value > y.high]
    note = ""
    if above:
        values = "1 value is" if len(above) == 1 else f"{len(above)} values are"
        note = f"{values} above this axis, the highest {significant(max(above))}."
    charts = (
        _simple(
            history, x, rate, "rate", "Learning rate", "", axis_of(rate.ys, zero=True, count=4)
        ),
        Chart(
            key="norm",
            title="Gradient norm",
            unit="before clipping",
            x=x,
            y=y,
            lines=[Line(name="Gradient norm", series=norm, style="c0 thin")],
            marks=list(resumption_marks(history)),
            glyphs=list(_skipped(history, y)),
            note=note,
        ).draw(),
    )
    return tag("div", *charts, class_="pair")


def _skipped(history: History, y: Axis) -> Iterator[Glyphs]:
    """Skipped steps, at their gradient norm, or at the top where they have none."""
    for reason, (character, name) in _REASONS.items():
        steps = [event for event in history.skipped if event.skipped == reason]
        values = [y.high if e.gradient_norm is None else e.gradient_norm for e in steps]
        series = Series(xs=[event.tokens for event in steps], ys=values)
        yield Glyphs(name=name, series=series, character=character, style="skipped")


def preference_figures(history: History, x: Axis) -> Markup | None:
    """How much and how often the chosen answers are preferred; None where that is not trained."""
    charts = []
    for key, title, unit in (
        ("margin", "Reward margin", "chosen over rejected"),
        ("accuracy", "Accuracy", "pairs whose chosen answer is preferred"),
    ):
        training, held_out = history.series(key), history.held_out(key)
        if training or held_out:
            y = axis_of([*training.ys, *held_out.ys], unit="%" if key == "accuracy" else "")
            lines = (
                Line(name="training", series=training, style="c0 thin"),
                Line(name="held-out", series=held_out, style="c1 held", marked=True),
            )
            charts.append(Chart(key=key, title=title, unit=unit, x=x, y=y, lines=lines).draw())
    return tag("div", *charts, class_="pair") if charts else None


def speed_figures(history: History, x: Axis) -> Markup | None:
    """Throughput, utilisation where the device's peak is known, and memory; None before a step."""
    charts: list[Markup] = []
    x = axis_of((x.low, x.high), unit="count", margin=0, count=3)
    for key, title, words, unit in (
        ("tokens_per_second", "Throughput", "positions per second", "count"),
        ("mfu", "Utilisation", "MFU, of the stated peak", "%"),
        ("memory", "Memory", "highest of a device", "bytes"),
    ):
        if series := history.series(key):
            y = axis_of(series.ys, unit=unit, zero=True, count=3)
            charts.append(_simple(history, x, series, key.replace("_", "-"), title, words, y))
    return tag("div", *charts, class_="three") if charts else None


def _simple(
    history: History, x: Axis, series: Series, key: str, title: str, unit: str, y: Axis
) -> Markup:
    lines: Sequence[Line] = [Line(name=title, series=series, style="c0 smooth")]
    marks = list(resumption_marks(history))
    return Chart(key=key, title=title, unit=unit, x=x, y=y, lines=lines, marks=marks).draw()
