"""Axes: a range, round ticks in it, and what is written at them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

SIZE = 1000.0
"""Units that a plot is wide and high; it is stretched to what the page has room for."""

_COUNTS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_BYTES = ((1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB"))


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A range of values along one side of a plot.

    Attributes:
        low: the value where it begins.
        high: the value where it ends; more than `low`.
        ticks: round values in between, rising.
        labels: what is written at each.
        divisor: what values are divided by where they are written.
        suffix: what is written behind them.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    divisor: float = 1.0
    suffix: str = ""

    def at(self, value: float) -> float:
        """Where a value lies, 0 at the low end and `SIZE` at the high one."""
        place = (value - self.low) / (self.high - self.low) * SIZE
        return min(max(place, -1000 * SIZE), 1000 * SIZE)

    def percent(self, value: float) -> float:
        """Where a value lies, from 0 to 100; what is outside of the axis is at its end."""
        return min(max(self.at(value) / SIZE, 0.0), 1.0) * 100


def axis_of(
    values: Iterable[float],
    *,
    unit: str = "",
    zero: bool = False,
    margin: float = 0.05,
    count: int = 5,
    robust: bool = False,
) -> Axis:
    """An axis that values fit on.

    Args:
        values: all that is drawn along it, finite; it may be empty.
        unit: "count" for k, M, B and T, "bytes" for kB and so on, "%" for shares of one, or
            none for plain numbers.
        zero: whether it begins at zero.
        margin: room beyond the outermost values, as a share of the range.
        count: about how many ticks.
        robust: leave out the few values far beyond all others.
    """
    drawn = sorted(values)
    low, high = (drawn[0], drawn[-1]) if drawn else (0.0, 1.0)
    if robust and len(drawn) >= 20:
        usual = drawn[len(drawn) * 49 // 50]
        high = min(high, 2 * usual) if usual > 0 else high
    low, high = _widened(min(low, 0.0) if zero else low, high, margin)
    divisor, suffix = _unit(unit, max(abs(low), abs(high)))
    step = _nice((high - low) / count)
    first = math.ceil(low / step - 1e-9)
    ticks = []
    while (tick := first * step) <= high + 1e-9 * step:
        ticks.append(tick + 0.0)
        first += 1
    written = zip(ticks, _labels(ticks, step, divisor), strict=True)
    labels = tuple(f"{label}{suffix}" if tick else "0" for tick, label in written)
    return Axis(
        low=low, high=high, ticks=tuple(ticks), labels=labels, divisor=divisor, suffix=suffix
    )


def _widened(low: float, high: float, margin: float) -> tuple[float, float]:
    """A range that is wide enough to be divided, with room at both ends."""
    least = max(1e-6 * max(abs(low), abs(high)), 1e-12)
    room = margin * (high - low)
    if high - low < least:
        room = max(0.05 * max(abs(low), abs(high)), 1e-12) if high or low else 1.0
    # What is never negative gets no room below zero.
    return (max(low - room, 0.0) if low >= 0 else low - room), high + room


def _unit(unit: str, largest: float) -> tuple[float, str]:
    if unit == "%":
        return 0.01, "%"
    for divisor, suffix in {"count": _COUNTS, "bytes": _BYTES}.get(unit, ()):
        if largest >= divisor:
            return divisor, suffix
    return 1.0, " B" if unit == "bytes" else ""


def _nice(step: float) -> float:
    """1, 2, 2.5 or 5 times a power of ten: the smallest that is not much less."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.75)


def _labels(ticks: list[float], step: float, divisor: float) -> list[str]:
    largest = max((abs(tick) for tick in ticks), default=0.0) / divisor
    step /= divisor
    if step >= 1e-3 and largest < 1e6:
        return [f"{tick / divisor:,.{_decimals(step)}f}" for tick in ticks]
    power = 10.0 ** math.floor(math.log10(largest or 1.0))
    decimals = _decimals(step / power)
    exponent = math.floor(math.log10(power) + 0.5)
    return [f"{tick / divisor / power:.{decimals}f}e{exponent}" if tick else "0" for tick in ticks]


def _decimals(step: float) -> int:
    """Decimals in which multiples of a step are written exactly."""
    places = range(12)
    return next((n for n in places if abs(round(step, n) - step) < 1e-6 * step), 12)


def significant(value: float, digits: int = 3) -> str:
    """A number for people: so many digits, thousands apart, no more zeros than needed."""
    if not value:
        return "0"
    # Of the rounded value: 9.999 in three digits is 10.0.
    size = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if -4 <= size < 7:
        return f"{value:,.{max(digits - 1 - size, 0)}f}"
    return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def amount(value: float, unit: str = "count") -> str:
    """A number of tokens, parameters or bytes for people: `12.3M`, `4.1 GB`."""
    divisor, suffix = _unit(unit, abs(value) * 1.0005)
    return f"{significant(value / divisor)}{suffix}" if divisor > 1 else f"{value:,.0f}{suffix}"


def signed(change: float) -> str:
    """A difference of losses, with its sign."""
    return f"{change:+.3f}".replace("-", "\N{MINUS SIGN}")
