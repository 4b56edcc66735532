"""The learning rate over a run."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorsurgeon.trainer.run_file import LearningRateSchedule
from tensorsurgeon.trainer.schedule import factor_at

schedules = st.builds(
    LearningRateSchedule,
    kind=st.sampled_from(["wsd", "cosine", "constant"]),
    warm_up=st.integers(0, 50),
    decay=st.floats(0, 1),
    final=st.floats(0, 1),
)


@given(schedules, st.integers(1, 200))
def test_the_factor_stays_between_nothing_and_one_and_rises_only_in_the_warm_up(
    schedule: LearningRateSchedule, steps: int
) -> None:
    factors = [factor_at(schedule, step, steps) for step in range(steps)]
    assert all(0 <= factor <= 1 for factor in factors)
    later = factors[schedule.warm_up :]
    assert all(a >= b - 1e-12 for a, b in pairwise(later))
    early = factors[: schedule.warm_up]
    assert all(a < b for a, b in pairwise(early))


@given(schedules, st.integers(60, 200))
def test_the_step_after_the_last_would_have_the_final_rate(
    schedule: LearningRateSchedule, steps: int
) -> None:
    decays = schedule.kind != "constant"
    wanted = schedule.final if decays else 1.0
    assert math.isclose(factor_at(schedule, steps, steps), wanted, abs_tol=1e-9)


def test_wsd_is_flat_and_then_falls_in_a_line() -> None:
    schedule = LearningRateSchedule(kind="wsd", warm_up=2, decay=0.4)
    factors = [factor_at(schedule, step, 10) for step in range(10)]
    assert factors == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


def test_cosine_is_halfway_down_in_the_middle() -> None:
    schedule = LearningRateSchedule(kind="cosine", final=0.2)
    assert factor_at(schedule, 4, 9) == pytest.approx(0.6)
