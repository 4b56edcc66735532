"""What happened in a training, put in order from its metrics."""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from tensorsurgeon.errors import DataError
from tensorsurgeon.trainer.report.events import (
    BaselineEvent,
    EndEvent,
    EvaluationEvent,
    Event,
    LayersEvent,
    RunEvent,
    SavedEvent,
    SeamsEvent,
    StepEvent,
    read_events,
)
from tensorsurgeon.trainer.report.series import Series

AtStep = TypeVar("AtStep", StepEvent, EvaluationEvent, LayersEvent, SeamsEvent, SavedEvent)
Measuring = TypeVar("Measuring", EvaluationEvent, SeamsEvent)


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """When a loss that was above the base model's came back to it.

    Attributes:
        step: of the first evaluation at or below the base's loss, after one above it.
        tokens: trained on by then.
        above: tokens at the evaluation before that one, which was still above.
        lasting: whether no later evaluation was above again.
    """

    step: int
    tokens: int
    above: int
    lasting: bool


@dataclass(frozen=True, kw_only=True)
class History:
    """A run's events by their kinds; of each step the last that was written.

    Attributes:
        run: how it began, or last went on.
        resumed: the steps after which it went on.
        end: how it ended; None while it runs, and where it was killed.
        base: the base model's loss on the data that the evaluations are of.
        evaluations: on the data that the last one is of.
        left_out: how many were on other data, before the run went on.
        seams: with the tokens that the last ones were looked at with.
    """

    run: RunEvent
    began: str
    resumed: tuple[int, ...]
    end: EndEvent | None
    base: BaselineEvent | None
    steps: tuple[StepEvent, ...]
    evaluations: tuple[EvaluationEvent, ...]
    left_out: int
    layers: tuple[LayersEvent, ...]
    seams: tuple[SeamsEvent, ...]
    saved: tuple[SavedEvent, ...]

    @classmethod
    def read(cls, path: Path) -> "History":
        """Read a file of metrics.

        Raises:
            DataError: it is not there, damaged, or of no run.
        """
        return cls.of(read_events(path), str(path))

    @classmethod
    def of(cls, events: Sequence[Event], where: str = "") -> "History":
        """Put events in order.

        Raises:
            DataError: none of them says what run they are of.
        """
        runs = [event for event in events if isinstance(event, RunEvent)]
        if not runs:
            raise DataError(
                "holds no run yet",
                where=where,
                fix="wait for the first step of the training, or name another folder",
            )
        ends = [i for i, event in enumerate(events) if isinstance(event, EndEvent | RunEvent)]
        last = events[ends[-1]]
        evaluations, seams = _by_step(events, EvaluationEvent), _by_step(events, SeamsEvent)
        same = _of_one_data(evaluations)
        bases = [event for event in events if isinstance(event, BaselineEvent)]
        if same:
            bases = [base for base in bases if base.data == same[-1].data]
        return cls(
            run=runs[-1],
            began=runs[0].at,
            resumed=tuple(sorted({r.resumed_at for r in runs if r.resumed_at is not None})),
            end=last if isinstance(last, EndEvent) else None,
            base=bases[-1] if bases else None,
            steps=_by_step(events, StepEvent),
            evaluations=same,
            left_out=len(evaluations) - len(same),
            layers=_by_step(events, LayersEvent),
            seams=_of_one_data(seams),
            saved=_by_step(events, SavedEvent),
        )

    def tokens_at(self, step: int) -> int:
        """Tokens trained on after a step; where it is not on record, from the last that is."""
        known = self._tokens
        if step in known:
            return known[step]
        at = bisect(self.steps, step, key=lambda event: event.step)
        last = self.steps[at - 1] if at else None
        return (last.tokens if last else 0) + self.run.tokens_per_step * (
            step - (last.step if last else 0)
        )

    @cached_property
    def _tokens(self) -> dict[int, int]:
        return {event.step: event.tokens for event in self.steps}

    @property
    def tokens(self) -> int:
        """Tokens trained on."""
        return max((event.tokens for event in self.steps), default=0)

    @property
    def valid_share(self) -> float | None:
        """Valid labels as a share of the positions, in the steps on record; None where unknown."""
        valid = [event.valid for event in self.steps if event.valid is not None]
        positions = len(valid) * self.run.tokens_per_step
        return sum(valid) / positions if positions else None

    def series(self, key: str, *, skipped: bool = True) -> Series:
        """A number of the steps, where it is finite, over tokens; of skipped ones or not."""
        steps = [event for event in self.steps if skipped or not event.skipped]
        return _series([(event.tokens, getattr(event, key)) for event in steps])

    def held_out(self, key: str = "loss") -> Series:
        """A number of the evaluations, where it is finite, over tokens."""
        found = [(self.tokens_at(e.step), getattr(e, key)) for e in self.evaluations]
        return _series(found)

    @property
    def measured(self) -> str:
        """What the losses before and after are taken from."""
        return "held-out" if self.held_out() else "training"

    @property
    def losses(self) -> Series:
        """The held-out loss, or the training loss where there is none."""
        return self.held_out() or self.series("loss")

    @property
    def was_above_base(self) -> bool:
        """Whether the first held-out loss was above the base model's."""
        held_out = self.held_out()
        return bool(
            held_out
            and self.base is not None
            and self.base.loss is not None
            and held_out.ys[0] > self.base.loss
        )

    def recovery(self) -> Recovery | None:
        """When the held-out loss came back to the base model's; None where it did not.

        None as well where there is nothing to compare, or the loss was never above.
        """
        if self.base is None or self.base.loss is None:
            return None
        above: int | None = None
        known = [(e.step, e.loss) for e in self.evaluations if e.loss is not None]
        for i, (step, loss) in enumerate(known):
            if loss > self.base.loss:
                above = step
            elif above is not None:
                return Recovery(
                    step=step,
                    tokens=self.tokens_at(step),
                    above=self.tokens_at(above),
                    lasting=all(later <= self.base.loss for _, later in known[i:]),
                )
        return None

    @property
    def skipped(self) -> tuple[StepEvent, ...]:
        """Steps whose update was left out."""
        return tuple(event for event in self.steps if event.skipped)


def _series(points: Sequence[tuple[int, float | None]]) -> Series:
    known = sorted((x, y) for x, y in points if y is not None)
    return Series(xs=[x for x, _ in known], ys=[y for _, y in known])


def _by_step(events: Sequence[Event], kind: type[AtStep]) -> tuple[AtStep, ...]:
    found = {event.step: event for event in events if isinstance(event, kind)}
    return tuple(found[step] for step in sorted(found))


def _of_one_data(events: Sequence[Measuring]) -> tuple[Measuring, ...]:
    """Those on the data of the last: a run that went on may have been given others."""
    return tuple(event for event in events if event.data == events[-1].data)
