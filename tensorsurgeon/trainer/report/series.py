"""Long series made short and noisy ones smooth, without losing what matters in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, kw_only=True)
class Series:
    """Values over tokens.

    Attributes:
        xs: tokens, rising.
        ys: as many values, all finite.
    """

    xs: Sequence[float] = ()
    ys: Sequence[float] = ()

    def __post_init__(self) -> None:
        assert len(self.xs) == len(self.ys)

    def __bool__(self) -> bool:
        return bool(self.xs)

    def near(self, x: float) -> float | None:
        """The value at the point nearest to `x`; None where that is off by more than a twentieth.

        Nothing is made up in between: a loss falls steeply at first, and then hardly.
        """
        nearest = min(range(len(self.xs)), key=lambda i: abs(self.xs[i] - x), default=None)
        if nearest is None or abs(self.xs[nearest] - x) > 0.05 * abs(x):
            return None
        return self.ys[nearest]


def thinned(series: Series, limit: int) -> Series:
    """At most `limit` points of a series, with the lowest and the highest of each stretch of it.

    Args:
        series: any.
        limit: at least 4.
    """
    count = len(series.xs)
    if count <= limit:
        return series
    buckets = (limit - 2) // 2
    kept = [0]
    for bucket in range(buckets):
        start, stop = (1 + (count - 2) * edge // buckets for edge in (bucket, bucket + 1))
        inside = range(start, stop)
        kept += sorted(
            {min(inside, key=series.ys.__getitem__), max(inside, key=series.ys.__getitem__)}
        )
    kept.append(count - 1)
    return Series(xs=[series.xs[i] for i in kept], ys=[series.ys[i] for i in kept])


def smoothed(series: Series) -> Series:
    """A moving average taken twice, over about a twentieth of the series.

    It looks as far ahead as back, so that it does not lag behind. At the start, where a loss falls
    fastest, that is no further than there is behind: the first point stays. At the end there is
    less and less ahead, but as much behind, so that the last point is no more noisy than others.
    """
    half = max(len(series.ys) // 40, 1)
    return Series(xs=series.xs, ys=_averaged(_averaged(series.ys, half), half))


def _averaged(values: Sequence[float], half: int) -> list[float]:
    if not values:
        return []
    # Sums of differences to a value from among them: a constant is exactly itself.
    middle = values[len(values) // 2]
    sums = list(accumulate((value - middle for value in values), initial=0.0))
    low, high = min(values), max(values)
    averages = []
    for i in range(len(values)):
        back = min(half, i)
        ahead = min(back, len(values) - 1 - i)
        total = sums[i + ahead + 1] - sums[i - back]
        averages.append(min(max(middle + total / (back + ahead + 1), low), high))
    return averages
