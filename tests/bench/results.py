"""What a benchmark found: every run, and the medians and ratios made from them."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.bench.measure import Measurement

Figure = Callable[[Measurement], float]


def wall(run: Measurement) -> float:
    """The figure that ratios are usually made of."""
    return run.wall


@dataclass(kw_only=True)
class Agreement:
    """How far two checkpoints are apart, in units in the last place (ulp) of bf16."""

    tensors: int
    elements: int = 0
    differing: int = 0
    beyond_one_ulp: int = 0
    max_ulp: int = 0


@dataclass(kw_only=True)
class JobResult:
    """All runs of a job by program; `warm_up` has the one of each that is not counted."""

    title: str
    bytes_read: int
    bytes_written: int
    warm_up: dict[str, Measurement] = field(default_factory=dict)
    runs: dict[str, list[Measurement]] = field(default_factory=dict)
    agreement: Agreement | None = None

    def median(self, program: str, figure: Figure) -> float | None:
        """Median over the counted runs; None if the program took no part."""
        runs = self.runs.get(program)
        return statistics.median(map(figure, runs)) if runs else None

    def ratio(self, program: str, to: str, figure: Figure = wall) -> float | None:
        """Median of the ratios within a round, so that what slows a round down cancels out."""
        rounds = zip(self.runs.get(program, []), self.runs.get(to, []), strict=False)
        ratios = [figure(run) / figure(other) for run, other in rounds]
        return statistics.median(ratios) if ratios else None


@dataclass(frozen=True, kw_only=True)
class FlatnessRow:
    """Our peak resident bytes for one job by label of the model's size."""

    title: str
    peaks: dict[str, int]

    @property
    def spread(self) -> float:
        """How far the greatest peak is above the least, as a share of it."""
        return max(self.peaks.values()) / min(self.peaks.values()) - 1


@dataclass(kw_only=True)
class Results:
    """One run of the benchmark."""

    date: str
    scale: str
    parameters: int
    floor_write: str
    cache_is_warm: bool
    machine: dict[str, str]
    versions: dict[str, str]
    jobs: dict[str, JobResult] = field(default_factory=dict)
    start_seconds: dict[str, float] = field(default_factory=dict)
    costs: list[JobResult] = field(default_factory=list)
    """Each is the engine against one program that leaves something out."""
    streaming: dict[str, list[JobResult]] = field(default_factory=dict)
    """By the line they went over: the engine against a bare download."""
    flatness: list[FlatnessRow] = field(default_factory=list)
