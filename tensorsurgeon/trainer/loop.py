"""The loop of a training: what one step does, and what is looked at between steps."""

import math
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.distributed as dist

from tensorsurgeon.errors import TensorSurgeonError, TrainingError
from tensorsurgeon.trainer.evaluation import evaluate
from tensorsurgeon.trainer.groups import optimizer_groups
from tensorsurgeon.trainer.learner import Batch, Learner, collate
from tensorsurgeon.trainer.objectives import Objective
from tensorsurgeon.trainer.optimisation import (
    GradientNorms,
    StepGuard,
    make_optimizer,
    set_learning_rate,
)
from tensorsurgeon.trainer.parallel import Ranks
from tensorsurgeon.trainer.records import Recorder
from tensorsurgeon.trainer.resume import first_rank
from tensorsurgeon.trainer.saving import Saver, training_state
from tensorsurgeon.trainer.schedule import factor_at
from tensorsurgeon.trainer.seams import SeamProbe
from tensorsurgeon.trainer.setup import Setup
from tensorsurgeon.trainer.slices import squared_distances


class Loop:
    """Takes the steps of one training, from any of them on.

    Args:
        setup: what is trained, on what, and how.
        ranks: who takes part.
        learner: the model with its weights.
        objective: what is learned.
        measured: the same for held-out data.
        saver: where to go on from after an interruption.
        recorder: told of everything that is measured.
        probe: of the seams.
    """

    def __init__(
        self,
        setup: Setup,
        ranks: Ranks,
        learner: Learner,
        objective: Objective,
        measured: Objective,
        saver: Saver,
        recorder: Recorder,
        probe: SeamProbe | None,
    ) -> None:
        self._setup = setup
        self._run = setup.run
        self._ranks = ranks
        self._learner = learner
        self._objective = objective
        self._measured = measured
        self._saver = saver
        self._recorder = recorder
        self._probe = probe
        named = list(setup.model.parameters())
        trained = [(n, p) for n, p in named if not setup.treatments[n].frozen]
        groups = optimizer_groups(trained, setup.treatments)
        self.optimizer = make_optimizer(groups, self._run.settings.optimizer)
        layer_of = {parameter.name: parameter.layer for parameter in setup.parameters}
        self._norms = GradientNorms(trained, layer_of, len(setup.layer_map), ranks)
        self.guard = StepGuard(self._run.settings.guard)
        self._movable = {
            name: layer for name, _ in trained if (layer := layer_of[name]) is not None
        }
        self.step = 0
        self._since = time.monotonic()
        self._failure: TensorSurgeonError | None = None
        self.stopping = 0
        """Number of the signal that asked this rank to end after the step it is in."""

    def take_up(self, step: int, guard: Mapping[str, Any]) -> None:
        """Go on from a step, with what the guard had seen."""
        self.step = step
        self.guard = StepGuard(self._run.settings.guard, guard["recent"], guard["not_finite"])

    def carry_on(self) -> None:
        """Take the steps that are left, or those until any rank is asked to end."""
        if self.step == 0:
            self.look(0)
        self._since = time.monotonic()
        for step, batches in self._batches():
            weight, stop = self._agree(batches)
            if stop and self.step:  # asked while something was measured or saved
                self.save(wait=True)
                return
            stop = self._take(step, batches, weight)
            self.step = step + 1
            self._saver.poll()
            if stop:  # whoever asked may not wait long
                self.save(wait=True)
            self.look(self.step, last=self.step == self._run.steps)
            if stop:
                return
            if self.step % self._run.settings.checkpoint.every == 0:
                self.save(wait=False)
        self._saver.wait()
        first_rank(self._recorder.check)

    def _batches(self) -> Iterator[tuple[int, list[Batch]]]:
        """This rank's batches of each step that is left, the next ones made meanwhile.

        Where they cannot be made there are none, and why is remembered until all ranks can be told.
        """
        with ThreadPoolExecutor(1) as maker:
            coming = maker.submit(self._batches_of, self.step)
            for step in range(self.step, self._run.steps):
                batches: list[Batch] = []
                try:
                    batches = coming.result()
                except TensorSurgeonError as error:
                    self._failure = error
                if step + 1 < self._run.steps:
                    coming = maker.submit(self._batches_of, step + 1)
                yield step, batches

    def _batches_of(self, step: int) -> list[Batch]:
        """Samples are numbered through the run, so that any number of ranks sees the same."""
        batch, ranks = self._run.settings.batch, self._ranks
        each = batch.sequences // ranks.size
        first = step * batch.sequences + ranks.rank * each
        batches = [
            collate([self._setup.data.sample(at + i) for i in range(batch.micro)])
            for at in range(first, first + each, batch.micro)
        ]
        return [batch.pinned() if ranks.device.type == "cuda" else batch for batch in batches]

    def _take(self, step: int, batches: list[Batch], weight: float) -> bool:
        """One step; `weight` is what its loss is a mean of. Returns whether any rank shall end."""
        settings, objective = self._run.settings, self._objective
        sums = torch.zeros(
            1 + len(objective.extras), dtype=torch.float64, device=self._ranks.device
        )
        for number, batch in enumerate(batches, start=1):
            self._learner.exchange_between_replicas(number == len(batches))
            found = self._learner(batch.to(self._ranks.device), objective)
            # Gradients are averaged over ranks; their sum over the step's weight is wanted.
            (found[0] * (self._ranks.size / weight)).backward()
            sums += found.detach().double()
        stopping = torch.tensor([float(self.stopping)], device=sums.device, dtype=sums.dtype)
        told = torch.cat((sums, self._norms.local(), stopping))
        loss, *rest = [float(value) for value in self._ranks.sum(told).tolist()]
        extras = [value / weight for value in rest[: len(objective.extras)]]
        norms = self._norms.read(rest[len(objective.extras) : -1])
        loss /= weight
        skipped = self.guard.judge(loss, norms.total)
        rate = settings.optimizer.learning_rate * factor_at(
            settings.schedule, step, self._run.steps
        )
        if skipped is None:
            self._norms.clip(norms.total, settings.optimizer.clip)
            set_learning_rate(self.optimizer, rate)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._recorder.step(
            step=step + 1,
            loss=loss,
            weight=weight,
            learning_rate=rate,
            norms=norms,
            seconds=self._lap(),
            skipped=skipped,
            memory=peak_memory(self._ranks.device),
            extras=dict(zip(objective.extras, extras, strict=True)),
        )
        return bool(rest[-1])

    def _lap(self) -> float:
        """Seconds since the last step, or what was measured or saved after it."""
        before, self._since = self._since, time.monotonic()
        return self._since - before

    def _agree(self, batches: list[Batch]) -> tuple[float, bool]:
        """What the step's loss is a mean of, over all ranks, at least 1; whether any shall end.

        Raises:
            TensorSurgeonError: a rank has no batches, or could not write its metrics; on all ranks.
        """
        failure = self._failure or self._recorder.failure
        weight = float(sum(map(self._objective.weight, batches)))
        mine = (weight, float(failure is not None), float(self.stopping))
        told = torch.tensor(mine, dtype=torch.float64)
        dist.all_reduce(told)  # on the processor, where it is needed
        if failure is not None:
            raise failure
        if told[1]:
            raise TrainingError("another rank has failed, and says why")
        return max(told[0].item(), 1.0), bool(told[2])

    def look(self, step: int, *, last: bool = False) -> None:
        """Measure what is due after so many steps."""
        settings = self._run.settings
        if self._setup.held_out is not None and (last or step % settings.evaluate.every == 0):
            samples = self._setup.held_out.samples
            micro = settings.batch.micro
            found = evaluate(self._learner, samples, self._measured, self._ranks, micro)
            self._recorder.evaluation(step, found)
        if last or step % settings.log.layers == 0:
            if self._probe is not None:
                layers = self._setup.model.layers
                self._recorder.seams(step, self._probe.measure(self._learner, layers, self._ranks))
            self._recorder.layers(step, self._moved())
        self._since = time.monotonic()

    def _moved(self) -> list[float]:
        """How far each layer is from where it began, relative to its norm there."""
        depth = len(self._setup.layer_map)
        sums = torch.zeros(depth, 2, dtype=torch.float64)
        names = list(self._movable)
        distances = squared_distances(self._setup.model, self._setup.checkpoint, names)
        for name, distance in zip(names, distances, strict=True):
            sums[self._movable[name]] += distance
        dist.all_reduce(sums)
        return [math.sqrt(moved / was) if was else 0.0 for moved, was in sums.tolist()]

    def save(self, *, wait: bool) -> None:
        """Begin to save a checkpoint of the training, or save it."""
        state = training_state(self._learner, self.optimizer)
        meta = {
            "run": self._recorder.configuration,
            "guard": {"recent": self.guard.recent, "not_finite": self.guard.not_finite},
        }
        self._saver.save(self.step, state, meta, wait=wait)
        self._since = time.monotonic()


def peak_memory(device: torch.device) -> int:
    """The most memory that was used, in bytes: allocated on a GPU, else resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
