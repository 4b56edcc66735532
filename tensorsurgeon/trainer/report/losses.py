"""The loss: of the run, of its controls and of the base model, and when the last was reached."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tensorsurgeon.trainer.report.axes import Axis, amount, axis_of, signed
from tensorsurgeon.trainer.report.charts import (
    Chart,
    Level,
    Line,
    Mark,
    legend,
    line_sample,
    sample,
)
from tensorsurgeon.trainer.report.history import History
from tensorsurgeon.trainer.report.markup import Markup, joined, tag
from tensorsurgeon.trainer.report.series import Series, smoothed

COLORS = 7
"""Of lines, in the style sheet."""

_SMOOTHED_FROM = 40
"""Steps from which on a smoothed line says more than the losses themselves."""

_JOINED_FROM = 5
"""Evaluations from which on they are joined by a line."""

_KINDS = ("training", "training, smoothed", "held-out")

_ZOOM = 2.5
"""How much taller a close-up must show what it shows, to be worth its place."""


def loss_figures(histories: Sequence[History], names: Sequence[str], x: Axis) -> Markup:
    """The loss over tokens, near the base's loss as well where the rest is far from it."""
    run = histories[0]
    if not any(history.series("loss") or history.held_out() for history in histories):
        return tag("p", "No loss is on record yet.")
    by_run = [list(_lines(history, f"c{i % COLORS}")) for i, history in enumerate(histories)]
    lines = [
        replace(line, name=f"{name}, {line.name}") if len(histories) > 1 else line
        for name, drawn in zip(names, by_run, strict=True)
        for line in drawn
    ]
    # Raw losses lie behind everything else.
    lines.sort(key=lambda line: "raw" not in line.style)
    levels = []
    if run.base is not None and run.base.loss is not None:
        levels.append(Level(name=f"{run.base.name}, held-out", value=run.base.loss))
    values = [y for line in lines for y in line.series.ys] + [level.value for level in levels]
    whole, near = axis_of(values), _near(histories, levels, x)
    marks = [*recovery_mark(run), *resumption_marks(run)]
    charts = [(whole, "loss", "Loss", "tall")]
    if near and whole.high - whole.low > _ZOOM * (near.high - near.low):
        charts = [
            (whole, "loss", "Loss, all of it", "middle"),
            (near, "loss-near", "Loss, the last nine tenths enlarged", "tall"),
        ]
    drawn = (
        Chart(
            key=key,
            title=title,
            unit="nats per pair" if run.run.stage == "dpo" else "nats per token",
            x=x,
            y=y,
            lines=lines,
            levels=levels,
            marks=marks,
            height=height,
            legend=Markup(),
        ).draw()
        for y, key, title, height in charts
    )
    return joined(_legend(by_run, names, levels, marks), *drawn)


def _legend(
    by_run: Sequence[Sequence[Line]],
    names: Sequence[str],
    levels: Sequence[Level],
    marks: Sequence[Mark],
) -> Markup | None:
    """Runs by their colours, then kinds of lines, which are the same in all colours."""
    runs = [(tag("i", class_=f"swatch c{i % COLORS}"), name) for i, name in enumerate(names)]
    kinds = {line.name: line for lines in reversed(by_run) for line in lines if line.series}
    gray = len(names) > 1
    shown_as = (
        replace(line, style=f"any {line.style.split(' ', 1)[1]}") if gray else line
        for line in sorted(kinds.values(), key=lambda line: _KINDS.index(line.name))
    )
    return legend(
        [
            *(runs if gray else []),
            *((line_sample(line), line.name) for line in shown_as),
            *((sample(f"level {level.style}"), level.name) for level in levels),
            *((sample(f"mark {mark.style}"), mark.name) for mark in marks),
        ]
    )


def recovery_mark(history: History) -> Iterator[Mark]:
    """Where the base's loss was passed."""
    if recovery := history.recovery():
        label = f"base passed: {amount(recovery.tokens)} tokens"
        yield Mark(x=recovery.tokens, name="base's loss passed again", label=label, style="passed")


def resumption_marks(history: History) -> Iterator[Mark]:
    """Where the run was interrupted and went on."""
    for step in history.resumed:
        if step:
            yield Mark(x=history.tokens_at(step), name="resumed")


def _lines(history: History, color: str) -> Iterator[Line]:
    training, held_out = history.series("loss"), history.held_out()
    if len(training.xs) >= _SMOOTHED_FROM:
        yield Line(name="training", series=training, style=f"{color} raw")
        smooth = smoothed(history.series("loss", skipped=False))
        yield Line(name="training, smoothed", series=smooth, style=f"{color} smooth")
    else:
        yield Line(name="training", series=training, style=f"{color} smooth")
    # A line through two or three points would claim what nobody measured.
    style = f"{color} held" + (" sparse" if len(held_out.xs) < _JOINED_FROM else "")
    yield Line(name="held-out", series=held_out, style=style, marked=True, labelled=True)


def _near(histories: Sequence[History], levels: Sequence[Level], x: Axis) -> Axis | None:
    """An axis for what is left of the losses after a tenth of the tokens."""
    late = x.low + (x.high - x.low) / 10
    values = [level.value for level in levels]
    for history in histories:
        for series in (smoothed(history.series("loss", skipped=False)), history.held_out()):
            values += [
                loss for tokens, loss in zip(series.xs, series.ys, strict=True) if tokens >= late
            ]
    return axis_of(values, margin=0.2) if len(values) > 1 else None


def comparison(histories: Sequence[History], names: Sequence[str]) -> Markup | None:
    """A table of the run and its controls; None where there are none of these, or no losses."""
    ends = [history.losses.xs[-1] for history in histories if history.losses]
    if len(histories) < 2 or not ends:
        return None
    common = min(ends)
    differ = any(history.losses and history.losses.xs[-1] != common for history in histories)
    names_of_columns = ["Run", "Parameters", "Tokens", "Loss before", "Loss after"]
    names_of_columns += [f"at {amount(common)} tokens"] if differ else []
    base = histories[0].base.loss if histories[0].base else None
    names_of_columns += ["against the base's"] if base is not None else []
    rows = []
    for index, (history, name) in enumerate(zip(histories, names, strict=True)):
        losses = history.losses
        cells = [amount(history.run.parameters), amount(history.tokens)]
        cells += [_loss(losses, 0), _loss(losses, -1)]
        cells += [_at(losses, common)] if differ else []
        cells += [signed(losses.ys[-1] - base) if losses else "none"] if base is not None else []
        swatch = tag("i", class_=f"swatch c{index % COLORS}")
        header = tag("th", swatch, name, scope="row")
        rows.append(tag("tr", header, *(tag("td", cell, class_="number") for cell in cells)))
    heads = (
        tag("th", name, scope="col", class_="number" if i else None)
        for i, name in enumerate(names_of_columns)
    )
    table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows))
    return joined(tag("div", table, class_="wide"), _caution(histories))


def _caution(histories: Sequence[History]) -> Markup | None:
    """What the table compares, and whether that is the same everywhere."""
    measured = {history.measured for history in histories}
    held_out = {
        (event.data, event.tokens, event.pairs)
        for history in histories
        for event in history.evaluations
    }
    if measured == {"held-out"} and len(held_out) <= 1:
        return None
    if measured == {"held-out"}:
        text = "These losses are of different held-out data, and no fair comparison."
    elif measured == {"training"}:
        text = "There are no held-out losses: these are of the first and the last step."
    else:
        text = "Some of these losses are held-out ones and some of training: no fair comparison."
    return tag("p", text, class_="note")


def _loss(losses: Series, index: int) -> str:
    return f"{losses.ys[index]:.3f}" if losses else "none"


def _at(losses: Series, tokens: float) -> str:
    value = losses.near(tokens)
    return "none" if value is None else f"{value:.3f}"
