"""The learning rate over a run, as a factor of its height. Pure."""

import math

from tensorsurgeon.trainer.run_file import LearningRateSchedule


def factor_at(schedule: LearningRateSchedule, step: int, steps: int) -> float:
    """The factor that a step is taken with.

    A warm-up rises in a line and reaches 1 at its last step. `wsd` stays there and falls in a line
    over the last share of the steps (Hu et al. 2024, MiniCPM, arXiv:2404.06395); `cosine` falls
    along half a cosine (Loshchilov and Hutter 2017). Both would reach `final` one step after the
    last, which at 0 would learn nothing.

    Args:
        schedule: which.
        step: counts from 0.
        steps: of the whole run.
    """
    if step < schedule.warm_up:
        return (step + 1) / schedule.warm_up
    if schedule.kind == "constant":
        return 1.0
    first = schedule.warm_up
    if schedule.kind == "wsd":
        first = max(first, steps - math.ceil(schedule.decay * steps))
    if step < first:
        return 1.0
    done = (step - first + 1) / (steps - first + 1)
    fallen = done if schedule.kind == "wsd" else (1 - math.cos(math.pi * done)) / 2
    return 1 - (1 - schedule.final) * fallen
