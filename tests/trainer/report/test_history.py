"""Events are put in order, and the recovery is when the loss came back to the base model's."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tensorsurgeon.errors import DataError
from tensorsurgeon.trainer.report.history import History, Recovery
from tests.trainer.report import synthetic
from tests.trainer.report.synthetic import (
    TOKENS_PER_STEP,
    Event,
    baseline_event,
    evaluation_event,
    run_event,
    step_event,
)


def history(tmp_path: Path, *events: Event) -> History:
    return History.read(synthetic.write(tmp_path / "metrics.jsonl", events))


def evaluated(tmp_path: Path, losses: Sequence[float | None], base: float) -> History:
    """A run with these held-out losses, after every second step."""
    found = [evaluation_event(2 * i, loss) for i, loss in enumerate(losses)]
    steps = [step_event(step) for step in range(1, 2 * len(losses))]
    return history(tmp_path, run_event(), baseline_event(base), *found, *steps)


@pytest.mark.parametrize(
    ("losses", "step", "above", "lasting"),
    [
        ([6.0, 3.0, 2.5, 2.2, 2.1], 6, 4, True),
        ([6.0, 2.3, 2.2], 2, 0, True),  # equal is back
        ([6.0, 2.2, 2.4, 2.2], 2, 0, False),
        ([6.0, None, 2.2], 4, 0, True),
        ([2.2, 2.5, 2.1], 4, 2, True),
    ],
)
def test_recovery_is_the_first_evaluation_no_longer_above_the_base(
    tmp_path: Path, losses: list[float | None], step: int, above: int, lasting: bool
) -> None:
    assert evaluated(tmp_path, losses, base=2.3).recovery() == Recovery(
        step=step,
        tokens=step * TOKENS_PER_STEP,
        above=above * TOKENS_PER_STEP,
        lasting=lasting,
    )


@pytest.mark.parametrize("losses", [[6.0, 3.0, 2.4], [2.2, 2.1], [], [None]])
def test_there_is_no_recovery_of_what_was_not_lost_or_not_reached(
    tmp_path: Path, losses: list[float | None]
) -> None:
    found = evaluated(tmp_path, losses, base=2.3)
    assert found.recovery() is None
    assert found.was_above_base == (losses[:1] == [6.0])


def test_there_is_no_recovery_without_a_base(tmp_path: Path) -> None:
    found = history(tmp_path, run_event(), evaluation_event(0, 3.0), evaluation_event(9, 1.0))
    assert found.recovery() is None
    assert not found.was_above_base


def test_of_a_step_that_was_done_twice_the_later_counts(tmp_path: Path) -> None:
    events = [run_event(), *(step_event(n, 5.0) for n in (1, 2, 3))]
    events += [run_event(resumed_at=1), *(step_event(n, 4.0) for n in (2, 3))]
    found = history(tmp_path, *events)
    assert [event.step for event in found.steps] == [1, 2, 3]
    assert list(found.series("loss").ys) == [5.0, 4.0, 4.0]
    assert found.resumed == (1,)


def test_tokens_of_a_step_between_recorded_ones_are_counted_on(tmp_path: Path) -> None:
    found = history(tmp_path, run_event(), step_event(10), step_event(20, tokens=5_000_000))
    assert found.tokens_at(0) == 0
    assert found.tokens_at(4) == 4 * TOKENS_PER_STEP
    assert found.tokens_at(10) == 10 * TOKENS_PER_STEP
    assert found.tokens_at(13) == 13 * TOKENS_PER_STEP
    assert found.tokens_at(20) == 5_000_000
    assert found.tokens_at(21) == 5_000_000 + TOKENS_PER_STEP


def test_loss_that_was_not_finite_is_no_point_of_a_series(tmp_path: Path) -> None:
    bad = step_event(2, None, skipped="not finite", gradient_norm=None)
    found = history(tmp_path, run_event(), step_event(1, 3.0), bad, step_event(3, 2.9))
    assert list(found.series("loss").ys) == [3.0, 2.9]
    assert [event.step for event in found.skipped] == [2]


def test_skipped_steps_can_be_left_out_of_a_series(tmp_path: Path) -> None:
    spike = step_event(2, 9.0, skipped="spike")
    found = history(tmp_path, run_event(), step_event(1, 3.0), spike)
    assert list(found.series("loss").ys) == [3.0, 9.0]
    assert list(found.series("loss", skipped=False).ys) == [3.0]


def test_run_that_goes_on_after_its_end_has_not_ended(tmp_path: Path) -> None:
    end = {"event": "end", "step": 3, "reason": "terminated"}
    assert history(tmp_path, run_event(), end).end is not None
    assert history(tmp_path, run_event(), end, run_event(resumed_at=3)).end is None


def test_without_held_out_losses_the_training_loss_counts(tmp_path: Path) -> None:
    found = history(tmp_path, run_event(), step_event(1, 3.0), step_event(2, 2.0))
    assert found.measured == "training"
    assert list(found.losses.ys) == [3.0, 2.0]


def test_metrics_without_a_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no run yet\n  fix: "):
        history(tmp_path)


def test_losses_on_other_data_are_no_part_of_one_curve(tmp_path: Path) -> None:
    events = [run_event(), baseline_event(2.0) | {"data": "old"}]
    events += [evaluation_event(step, 1.9, data="old") for step in (0, 2)]
    events += [run_event(resumed_at=2), baseline_event(3.0) | {"data": "new"}]
    before = history(tmp_path, *events)
    assert before.base is not None
    assert (before.base.loss, before.left_out) == (2.0, 0)  # until something new is measured
    events += [evaluation_event(step, 3.5, data="new") for step in (4, 6)]
    after = history(tmp_path, *events)
    assert after.base is not None
    assert (after.base.loss, after.left_out) == (3.0, 2)
    assert [event.step for event in after.evaluations] == [4, 6]
    assert after.recovery() is None


def test_share_of_positions_that_are_learned_is_of_the_steps_that_tell(tmp_path: Path) -> None:
    steps = [step_event(n, valid=TOKENS_PER_STEP // n) for n in (1, 2)]
    assert history(tmp_path, run_event(), *steps, step_event(3)).valid_share == 0.75
    assert history(tmp_path, run_event(), step_event(3)).valid_share is None
