"""What a training tells while it runs: metrics on the disk and progress on the terminal."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tensorsurgeon.errors import OutputError
from tensorsurgeon.trainer.evaluation import Measured
from tensorsurgeon.trainer.flops import stated_peak
from tensorsurgeon.trainer.forecast import source_text, sources_forecast, token_flops
from tensorsurgeon.trainer.metrics import Metrics
from tensorsurgeon.trainer.optimisation import Norms
from tensorsurgeon.trainer.parallel import Ranks
from tensorsurgeon.trainer.progress import TrainingProgress
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
        self._tokens_per_step = setup.run.tokens_per_step
        self._flops = token_flops(setup)
        self._device = device_name(ranks)
        self._peak = setup.run.settings.engine.peak_flops or stated_peak(self._device)
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

    def recall(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Take up what earlier parts of the run have measured."""
        for event in events:
            if event["event"] not in ("baseline", "evaluation") or event["loss"] is None:
                continue
            found = Measured(loss=event["loss"], weight=event["tokens"], extras={})
            if event["event"] == "baseline":
                self.baseline = found
            else:
                self.first, self.last = self.first or found, found

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
            at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )

    def base(self, name: str, found: Measured) -> None:
        """The base model's held-out loss."""
        self.baseline = found
        self._write("baseline", name=name, loss=found.loss, tokens=found.weight, **found.extras)
        self.say(f"base model {name}: held-out loss {found.loss:.4f}")

    def step(
        self,
        *,
        step: int,
        loss: float,
        learning_rate: float,
        norms: Norms,
        seconds: float,
        skipped: str | None,
        memory: int,
        extras: Mapping[str, float],
    ) -> None:
        """A step was taken, or skipped."""
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
        self.first = self.first or found
        self.last = found
        self._write("evaluation", step=step, loss=found.loss, tokens=found.weight, **found.extras)
        if self._progress is not None:
            self._progress.update(step=step, held_out_loss=found.loss)

    def layers(self, step: int, moved: Sequence[float]) -> None:
        """How far each layer has moved, and the norm of its last gradient."""
        norms = self._norms.layers if self._norms else [None] * len(moved)
        self._write("layers", step=step, gradient_norms=list(norms), moved=list(moved))

    def seams(self, step: int, found: Sequence[Mapping[str, Any]]) -> None:
        """The inputs at the seams."""
        if found:
            self._write("seams", step=step, seams=list(found))

    def saved(self, step: int, seconds: float, nbytes: int) -> None:
        """A checkpoint of the training is complete."""
        self._write("saved", step=step, seconds=seconds, bytes=nbytes)

    def end(self, step: int, reason: str) -> None:
        """The run is over, or interrupted."""
        self._write("end", step=step, reason=reason)


def device_name(ranks: Ranks) -> str:
    """What computes, for people."""
    if ranks.device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(ranks.device)
    from tensorsurgeon.processors import default_threads

    return f"processor, {max(default_threads() - 1, 1)} cores"
