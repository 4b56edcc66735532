"""What a training tells while it runs: metrics on the disk and progress on the terminal."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tensorsurgeon.errors import OutputError, ResumeError
from tensorsurgeon.trainer.evaluation import Measured
from tensorsurgeon.trainer.fingerprint import fingerprint_of, training_digest
from tensorsurgeon.trainer.flops import stated_peak
from tensorsurgeon.trainer.forecast import source_text, sources_forecast, token_flops
from tensorsurgeon.trainer.metrics import Metrics
from tensorsurgeon.trainer.optimisation import Norms
from tensorsurgeon.trainer.parallel import Ranks
from tensorsurgeon.trainer.progress import TrainingProgress
from tensorsurgeon.trainer.report.events import BaselineEvent, EvaluationEvent
from tensorsurgeon.trainer.report.history import History
from tensorsurgeon.trainer.setup import Setup
from tensorsurgeon.trainer.versions import versions


class Recorder:
    """Writes metrics and shows progress, on the first rank; silent on the others.

    Args:
        setup: the training.
        ranks: who takes part.
        metrics: where to; None on other ranks than the first.
        progress: likewise.
        configuration: what binds the training's checkpoints to it.

    Attributes:
        first: held-out loss before the first step; None where none was measured on the data of
            the last.
        last: the newest held-out loss.
        baseline: the base model's, on the same data.
    """

    def __init__(
        self,
        setup: Setup,
        ranks: Ranks,
        metrics: Metrics | None,
        progress: TrainingProgress | None,
        configuration: Mapping[str, Any],
    ) -> None:
        self._setup = setup
        self._ranks = ranks
        self._metrics = metrics
        self._progress = progress
        self.configuration = configuration
        self._training = training_digest(configuration)
        self._held_out = setup.held_out.identity if setup.held_out else ""
        self._base_model = fingerprint_of(setup.baseline) if setup.baseline else ""
        is_dpo = setup.run.settings.stage == "dpo"
        self._counted, self._learned = ("pairs", "pairs") if is_dpo else ("tokens", "valid")
        self._tokens_per_step = setup.run.tokens_per_step
        self._flops = token_flops(setup)
        self._device = device_name(ranks)
        precision = str(ranks.precision).removeprefix("torch.")
        self._peak = setup.run.settings.engine.peak_flops or stated_peak(self._device, precision)
        self._before = 0.0
        self._began = time.monotonic()
        self._norms: Norms | None = None
        self.failure: OutputError | None = None
        self.first: Measured | None = None
        self.last: Measured | None = None
        self.baseline: Measured | None = None

    def _write(self, event: str, **values: Any) -> None:
        if self._metrics is None or self.failure is not None:
            return
        try:
            self._metrics.write({"event": event, **values})
        except OutputError as error:  # the other ranks have to be told first
            self.failure = error

    def check(self) -> None:
        """Whether everything was written down.

        Raises:
            OutputError: it was not.
        """
        if self.failure is not None:
            raise self.failure

    def say(self, text: str) -> None:
        """Tell the user."""
        if self._progress is not None:
            self._progress.say(text)

    @property
    def _own(self) -> Metrics:
        """The metrics, which the first rank alone has."""
        assert self._metrics is not None
        return self._metrics

    def check_unsaved(self) -> None:
        """Whether metrics that no checkpoint goes with may be replaced; on the first rank.

        Raises:
            ResumeError: another training has taken steps, and written them.
        """
        before = self._own.last_with_steps()
        if before is None:
            return
        if before.get("training") != self._training:
            what = "has the metrics of a run with other settings, and no checkpoint to go on from"
            fix = "give the new run another folder, or begin anew here with --no-resume"
            raise ResumeError(what, where=str(self._own.path.parent), fix=fix)
        self.say("no checkpoint was saved before: beginning anew")

    def rewind(self, step: int | None) -> float:
        """Forget what was written after a step, as `Metrics.rewind`; on the first rank."""
        return self._own.rewind(step)

    def recall(self, *, finished: bool) -> bool:
        """Take up the held-out losses of earlier parts of the run; on the first rank, once begun.

        Those of other data, or of more or fewer samples, are no part of the curve to come; they
        stay on record, and count on where nothing is to come.

        Args:
            finished: whether all steps are taken.

        Returns:
            Whether the base model has to be measured.
        """
        self.check()
        history = History.read(self._own.path)
        base, known = history.base, history.evaluations
        same = not known or known[-1].data == self._held_out
        if not same and not finished:
            self.say("what is held out is not what it was: losses on that are no longer drawn")
            return True
        losses = [(event.step, found) for event in known if (found := _measured(event))]
        self.first = dict(losses).get(0)
        self.last = losses[-1][1] if losses else None
        self.baseline = _measured(base) if base else None
        own = (self._held_out, self._base_model)
        return same and (base is None or (base.data, base.model) != own)

    def begin(self, *, resumed_at: int | None, seconds: float) -> None:
        """The run event; `seconds` is what earlier parts of the run took."""
        for source in sources_forecast(self._setup):
            self.say(source_text(source))
        setup, settings = self._setup, self._setup.run.settings
        self._before, self._began = seconds, time.monotonic()
        self._write(
            "run",
            stage=settings.stage,
            name=setup.checkpoint.path.name,
            parameters=setup.elements,
            trainable=setup.trained_elements,
            layers=[
                {"sources": [list(s) for s in e.sources], "new": e.new, "seam": e.seam}
                for e in setup.layer_map
            ],
            steps=setup.run.steps,
            tokens_per_step=self._tokens_per_step,
            sequence_length=settings.data.sequence_length,
            world_size=self._ranks.size,
            device=self._device,
            precision=str(self._ranks.precision).removeprefix("torch."),
            peak_flops=self._peak,
            versions=versions(),
            resumed_at=resumed_at,
            training=self._training,
            at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )

    def base(self, name: str, found: Measured) -> None:
        """The base model's held-out loss."""
        self.baseline = found
        measured = {"tokens": found.weight, "data": self._held_out, "model": self._base_model}
        self._write("baseline", name=name, loss=found.loss, **measured)
        self.say(f"base model {name}: held-out loss {found.loss:.4f}")

    def step(
        self,
        *,
        step: int,
        loss: float,
        weight: float,
        learning_rate: float,
        norms: Norms,
        seconds: float,
        skipped: str | None,
        memory: int,
        extras: Mapping[str, float],
    ) -> None:
        """A step was taken, or skipped; `weight` is how many labels, or pairs, its loss is of."""
        self._norms = norms
        speed = self._tokens_per_step / seconds
        used = speed * self._flops
        mfu = used / (self._peak * self._ranks.size) if self._peak else None
        if step % self._setup.run.settings.log.every == 0 or skipped:
            self._write(
                "step",
                step=step,
                loss=loss,
                learning_rate=learning_rate,
                gradient_norm=norms.total,
                tokens=step * self._tokens_per_step,
                **{self._learned: round(weight)},
                tokens_per_second=speed,
                mfu=mfu,
                memory=memory,
                seconds=self._before + time.monotonic() - self._began,
                skipped=skipped,
                **extras,
            )
        if self._progress is not None:
            self._progress.update(
                step=step,
                loss=loss,
                learning_rate=learning_rate,
                tokens_per_second=speed,
                mfu=mfu,
            )

    def evaluation(self, step: int, found: Measured) -> None:
        """The held-out loss after so many steps."""
        self.first = found if step == 0 else self.first
        self.last = found
        measured = {self._counted: found.weight, "data": self._held_out, **found.extras}
        self._write("evaluation", step=step, loss=found.loss, **measured)
        if self._progress is not None:
            self._progress.update(step=step, held_out_loss=found.loss)

    def layers(self, step: int, moved: Sequence[float]) -> None:
        """How far each layer has moved, and the norm of its last gradient."""
        norms = self._norms.layers if self._norms else [None] * len(moved)
        self._write("layers", step=step, gradient_norms=list(norms), moved=list(moved))

    def seams(self, step: int, found: Sequence[Mapping[str, Any]]) -> None:
        """The inputs at the seams."""
        if found:
            self._write("seams", step=step, seams=list(found), data=self._held_out)

    def saved(self, step: int, seconds: float, nbytes: int) -> None:
        """A checkpoint of the training is complete."""
        self._write("saved", step=step, seconds=seconds, bytes=nbytes)

    def end(self, step: int, reason: str) -> None:
        """The run is over, or interrupted."""
        self._write("end", step=step, reason=reason)


def device_name(ranks: Ranks) -> str:
    """What computes, for people; of a processor, what each rank uses of it."""
    if ranks.device.type == "cuda":
        return torch.cuda.get_device_name(ranks.device)
    threads = torch.get_num_threads()
    return f"processor, {threads} thread{'s' * (threads > 1)}"


def _measured(event: BaselineEvent | EvaluationEvent) -> Measured | None:
    """A loss as it was measured; None where it was not finite."""
    if event.loss is None:
        return None
    weight = event.tokens or getattr(event, "pairs", None) or 0
    return Measured(loss=event.loss, weight=weight, extras={})
