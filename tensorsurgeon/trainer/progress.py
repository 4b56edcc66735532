"""How a training goes, on stderr: a bar on a terminal, else a line every few seconds."""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

import click

from tensorsurgeon.errors import printable

_WINDOW = 50
"""Updates over which the speed is taken: pauses to evaluate and to save count in."""


class TrainingProgress:
    """Shows the step, the losses, the speed and the time left; nothing where it is to be quiet."""

    def __init__(self, steps: int, *, quiet: bool = False, every: float = 10.0) -> None:
        """Nothing is shown before the first update.

        Args:
            steps: of the whole run, those before a resumption included.
            quiet: whether to show nothing at all.
            every: seconds between two lines where stderr is no terminal.
        """
        self._steps = steps
        self._step = 0
        self._numbers: dict[str, float | None] = {}
        self._measured_at = 0
        self._times: deque[tuple[int, float]] = deque(maxlen=_WINDOW)
        self._display = _display(steps, quiet=quiet, every=every)

    def __enter__(self) -> "TrainingProgress":
        self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.stop()

    def update(
        self,
        *,
        step: int,
        loss: float | None = None,
        held_out_loss: float | None = None,
        learning_rate: float | None = None,
        tokens_per_second: float | None = None,
        mfu: float | None = None,
    ) -> None:
        """Show a step's numbers; of those that are None, the last ones stay.

        A held-out loss that stays is shown with the step it was measured at.
        """
        given = {
            "loss": loss,
            "held-out": held_out_loss,
            "lr": learning_rate,
            "tokens/s": tokens_per_second,
            "MFU": mfu,
        }
        self._numbers |= {name: value for name, value in given.items() if value is not None}
        if held_out_loss is not None:
            self._measured_at = step
        self._step = step
        self._times.append((step, time.monotonic()))
        self._display.show(step, self._words(), self._left())

    def say(self, text: str) -> None:
        """A line of its own, which stays."""
        self._display.say("\n".join(map(printable, text.splitlines())))

    def _words(self) -> str:
        words = {
            name: f"{name} {_FORMATS[name](value)}"
            for name in _FORMATS
            if (value := self._numbers.get(name)) is not None
        }
        if "held-out" in words and self._measured_at != self._step:
            words["held-out"] += f" at {self._measured_at:,}"
        return "  ".join(words.values())

    def _left(self) -> str:
        """The time that the steps left will take at the present speed; empty where unknown."""
        (first, began), (last, now) = self._times[0], self._times[-1]
        if last <= first or self._step >= self._steps:
            return ""
        return f"{duration((self._steps - last) * (now - began) / (last - first))} left"


def duration(seconds: float) -> str:
    """Seconds for people: `4 s`, `12:05`, `3:02:11`, `2 d 3 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def thousands(value: float) -> str:
    """A number for people in three digits: `51.2k`."""
    for unit in ("", "k", "M", "G"):
        if abs(value) < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}T"


_FORMATS: dict[str, Callable[[float], str]] = {
    "loss": lambda value: f"{value:.3f}",
    "held-out": lambda value: f"{value:.3f}",
    "lr": lambda value: f"{value:.2e}",
    "tokens/s": thousands,
    "MFU": lambda value: f"{value:.1%}",
}


class _Display(Protocol):
    def start(self) -> None: ...

    def show(self, step: int, words: str, left: str) -> None: ...

    def say(self, text: str) -> None: ...

    def stop(self) -> None: ...


def _display(steps: int, *, quiet: bool, every: float) -> _Display:
    if quiet or sys.stderr is None:
        return _Silence()
    return _Bar(steps) if sys.stderr.isatty() else _Lines(steps, every)


class _Silence:
    def start(self) -> None: ...

    def show(self, step: int, words: str, left: str) -> None: ...

    def say(self, text: str) -> None: ...

    def stop(self) -> None: ...


class _Lines:
    """A line every few seconds, and the last one."""

    def __init__(self, steps: int, every: float) -> None:
        self._steps, self._every = steps, every
        self._last = -float("inf")
        self._pending = ""

    def start(self) -> None: ...

    def show(self, step: int, words: str, left: str) -> None:
        self._pending = _line(step, self._steps, words, left)
        if time.monotonic() - self._last >= self._every:
            self._flush()

    def say(self, text: str) -> None:
        self._flush()  # what came before it
        _say(text)

    def stop(self) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._pending:
            _say(self._pending)
            self._last = time.monotonic()
            self._pending = ""


class _Bar:
    """Two lines at the bottom of a terminal; the last state stays as one line above."""

    def __init__(self, steps: int) -> None:
        from rich.console import Console, Group, RenderableType
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.text import Text

        class TwoLines(Progress):
            words = ""

            def get_renderables(self) -> Iterator[RenderableType]:
                yield Group(
                    *super().get_renderables(),
                    Text(self.words, style="dim", no_wrap=True, overflow="ellipsis"),
                )

        self._steps = steps
        self._last = ""
        self._bar = TwoLines(
            TextColumn("step {task.completed:,}/{task.total:,}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:.0f}%"),
            TextColumn("{task.fields[left]}"),
            console=Console(stderr=True),
            transient=True,
            refresh_per_second=4,
            redirect_stdout=False,  # what is printed there is data, and no note on stderr
            expand=True,
        )
        self._task = self._bar.add_task("", total=max(steps, 1), left="", visible=False)

    def start(self) -> None:
        self._bar.start()

    def show(self, step: int, words: str, left: str) -> None:
        self._last = _line(step, self._steps, words, "")
        self._bar.words = words
        self._bar.update(self._task, completed=step, left=left, visible=True)

    def say(self, text: str) -> None:
        try:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        except (OSError, SystemExit):  # rich ends the process where a pipe is broken
            _give_up_stderr()

    def stop(self) -> None:
        try:
            self._bar.stop()
        except (OSError, SystemExit):
            _give_up_stderr()
        if self._last:
            _say(self._last)


def _line(step: int, steps: int, words: str, left: str) -> str:
    done = f"step {step:,}/{steps:,} ({step / max(steps, 1):.0%})"
    return "  ".join(filter(None, (done, words, left)))


def _say(text: str) -> None:
    """To stderr; a run goes on where nobody reads it any more."""
    try:
        click.echo(text, err=True)
    except OSError:
        _give_up_stderr()


def _give_up_stderr() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
