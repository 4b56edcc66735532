"""The head of the report, with what matters first, and the facts of the run at its foot."""

from collections.abc import Iterator

from tensorsurgeon.trainer.progress import duration
from tensorsurgeon.trainer.report.axes import amount, signed, significant
from tensorsurgeon.trainer.report.history import History
from tensorsurgeon.trainer.report.markup import Markup, joined, shown, tag
from tensorsurgeon.trainer.stages import STAGES


def header(history: History, title: str) -> Markup:
    """The title, and what was trained in a sentence."""
    run = history.run
    stage = STAGES.get(run.stage, run.stage)
    size = f"{amount(run.parameters)} parameters in {_count(len(run.layers), 'layer')}"
    sentence = f"{size}, {amount(history.tokens)} tokens, {_device(history)}. {_state(history)}"
    return tag(
        "header", tag("p", stage, class_="stage"), tag("h1", shown(title)), tag("p", sentence)
    )


def headline(history: History) -> Markup:
    """The loss before and after, the base model's, and when that was passed again."""
    cards = [*_losses(history), *_base(history)]
    return tag("dl", *cards, class_="headline") if cards else joined()


def run_facts(history: History) -> Markup:
    """Everything else that is on record, as a table."""
    rows = (
        tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in _facts(history)
    )
    return tag("div", tag("table", tag("tbody", *rows), class_="facts"), class_="wide")


def _card(name: str, value: str, note: str, style: str = "") -> Markup:
    details = tag("dd", note, class_="note") if note else None
    return tag("div", tag("dt", name), tag("dd", value, class_=f"value {style}".strip()), details)


def _losses(history: History) -> Iterator[Markup]:
    losses = history.losses
    if not losses:
        return
    kind = history.measured
    first = losses.xs[0]
    before = f"{kind}, before training" if first == 0 else f"{kind}, after {amount(first)} tokens"
    yield _card("Loss before", f"{losses.ys[0]:.3f}", before)
    if len(losses.xs) > 1:
        change = losses.ys[-1] - losses.ys[0]
        note = f"{kind}, after {amount(losses.xs[-1])} tokens: {signed(change)}"
        yield _card("Loss after", f"{losses.ys[-1]:.3f}", note, "c0")


def _base(history: History) -> Iterator[Markup]:
    base = history.base
    if base is None or base.loss is None:
        return
    held_out = history.held_out()
    note = f"{base.name}, on {amount(base.tokens)} held-out tokens"
    yield _card("The base model's loss", f"{base.loss:.3f}", note)
    if not held_out:
        return
    last = f"{signed(held_out.ys[-1] - base.loss)} to the base at the end"
    recovery = history.recovery()
    if recovery:
        value = f"{amount(recovery.tokens)} tokens"
        note = f"at step {recovery.step:,}, not yet at {amount(recovery.above)}; {last}"
        if not recovery.lasting:
            note += "; in between above it again"
        yield _card("Base's loss passed after", value, note, "good")
    elif history.was_above_base:
        value = f"not in {amount(history.tokens)} tokens"
        yield _card("Base's loss passed", value, last, "bad")
    else:
        yield _card("Base's loss", "was never lost", last, "good")


def _facts(history: History) -> Iterator[tuple[str, str]]:
    run = history.run
    yield "Run", run.name
    yield "State", _state(history)
    trained = f"{run.parameters:,}"
    if run.trainable != run.parameters:
        trained += f", of which {run.trainable:,} are trained"
    yield "Parameters", trained
    yield "Steps", f"{history.steps[-1].step if history.steps else 0:,} of {run.steps:,}"
    yield "Positions a step", f"{run.tokens_per_step:,}"
    yield "Sequence length", f"{run.sequence_length:,} tokens"
    yield "Positions", f"{history.tokens:,}, padding included"
    if (share := history.valid_share) is not None:
        yield "Learned", f"{share:.1%} of the positions"
    yield "Device", _device(history)
    if run.precision:
        yield "Computed in", run.precision
    if run.peak_flops:
        yield "Stated peak", f"{significant(run.peak_flops / 1e12)} TFLOP/s a device"
    if history.steps:
        yield "Time", duration(history.steps[-1].seconds)
    yield from _events(history)
    if run.versions:
        yield "Versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())
    if history.began:
        yield "Began", history.began


def _events(history: History) -> Iterator[tuple[str, str]]:
    if history.resumed:
        yield "Resumed after steps", ", ".join(f"{step:,}" for step in history.resumed[:50])
    if history.skipped:
        reasons = [event.skipped for event in history.skipped]
        counts = ((reason, reasons.count(reason)) for reason in ("not finite", "spike"))
        words = {"not finite": "not finite", "spike": "a spike of the loss"}
        yield "Steps skipped", ", ".join(f"{n} ({words[reason]})" for reason, n in counts if n)
    if history.left_out:
        yield "Not drawn", f"{_count(history.left_out, 'held-out loss', 'es')} on other data"
    if history.saved:
        mean = sum(event.seconds for event in history.saved) / len(history.saved)
        size = amount(history.saved[-1].bytes, "bytes")
        saved = _count(len(history.saved), "time")
        yield "Saved", f"{saved}, {size} and {significant(mean)} s each"


def _device(history: History) -> str:
    run = history.run
    return (
        f"{run.world_size} \N{MULTIPLICATION SIGN} {run.device}"
        if run.world_size > 1
        else run.device
    )


def _state(history: History) -> str:
    steps = f"{history.steps[-1].step if history.steps else 0:,} of {history.run.steps:,} steps"
    if history.end is None:
        return f"Not finished: {steps} on record."
    if history.end.reason == "finished":
        return "Finished."
    return f"Ended after {steps}: {history.end.reason}."


def _count(number: int, name: str, plural: str = "s") -> str:
    return f"{number:,} {name}{plural * (number != 1)}"
