"""A training from its run file to the checkpoint that comes out, whatever interrupts it."""

import gc
import secrets
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from tensorsurgeon.checkpoint import Checkpoint
from tensorsurgeon.errors import Problem, ResumeError
from tensorsurgeon.trainer.data import IGNORED, TokenShards
from tensorsurgeon.trainer.evaluation import Measured, evaluate, shares
from tensorsurgeon.trainer.export import Export
from tensorsurgeon.trainer.fingerprint import fingerprint_of
from tensorsurgeon.trainer.learner import Learner, make_learner
from tensorsurgeon.trainer.loop import Loop
from tensorsurgeon.trainer.metrics import Metrics
from tensorsurgeon.trainer.model import LanguageModel
from tensorsurgeon.trainer.objectives import NextToken, Objective, Preferred
from tensorsurgeon.trainer.parallel import Ranks, joined
from tensorsurgeon.trainer.progress import TrainingProgress
from tensorsurgeon.trainer.records import Recorder
from tensorsurgeon.trainer.references import reference_log_probs
from tensorsurgeon.trainer.report import write_report
from tensorsurgeon.trainer.result import check_output, write_result
from tensorsurgeon.trainer.resume import (
    Saved,
    differences,
    discard,
    examine,
    find_latest,
    first_rank,
    held,
    name_of,
)
from tensorsurgeon.trainer.room import check_room
from tensorsurgeon.trainer.run_file import FREE, Run, RunFile
from tensorsurgeon.trainer.saving import Saver, Written, restore_training_state, training_state
from tensorsurgeon.trainer.seams import SeamProbe, find_seams, left_out, measurable
from tensorsurgeon.trainer.setup import Setup, open_model, set_up
from tensorsurgeon.writing import Disk

METRICS_NAME = "metrics.jsonl"
REPORT_NAME = "report.html"

_PROBED = 4
"""Samples that the seams are looked at with; what goes into the layers there is kept."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a training ended.

    Attributes:
        signal: number of the signal that ended it; 0 where it took all its steps.
        step: how many it has taken.
        path: the checkpoint that came out; None without one.
        report: the report's file.
        first: held-out loss before the first step; None where none was measured, or on other data.
        last: held-out loss after the last.
    """

    signal: int
    step: int
    path: Path | None
    report: Path
    first: Measured | None
    last: Measured | None


def train(
    run: Run, *, resume: bool = True, overwrite: bool = False, quiet: bool = False
) -> Outcome:
    """Train what a run file says, from where an interrupted run of it stopped.

    Every rank calls it. What is in the run's folder is replaced only where a training of the same
    settings left it, or where it shall begin anew.

    Args:
        run: the run file.
        resume: go on from the newest checkpoint; else begin anew.
        overwrite: replace a checkpoint at the output's path.
        quiet: show nothing.

    Raises:
        TensorSurgeonError: whatever keeps it from beginning or going on; on all ranks.
    """
    with ExitStack() as stack:
        with run.naming("engine"):
            ranks = stack.enter_context(joined(run.settings.engine))
        setup = set_up(run, device=ranks.device, ranks=ranks.size)
        folder = run.folder / "checkpoints"
        finished = resume and first_rank(lambda: _is_finished(folder, run.steps))
        export = check_output(setup, overwrite=overwrite, finished=finished)
        first_rank(lambda: check_room(setup))
        stack.enter_context(held(run.folder))
        progress = None
        if ranks.is_first:
            progress = stack.enter_context(TrainingProgress(run.steps, quiet=quiet))
        metrics = _open_metrics(run, stack)
        recorder = Recorder(setup, ranks, metrics, progress, _configuration(setup))
        if not resume:
            first_rank(lambda: _forget(folder))
        saver = stack.enter_context(
            Saver(folder, keep=run.settings.checkpoint.keep, done=_told(recorder))
        )
        saved = saver.latest(recorder.say)
        if saved is not None:
            _check_same(run, saved, recorder.configuration)
        elif resume:
            first_rank(recorder.check_unsaved)
        loop = _make_loop(setup, ranks, saver, saved, recorder)
        with _signals(loop):
            loop.carry_on()
            loop.save(wait=True)
            # Ranks may have been sent several, and after the last step as well.
            number = round(ranks.highest(loop.stopping))
        return _finish(setup, ranks, loop, recorder, export, number, overwrite=overwrite)


def _is_finished(folder: Path, steps: int) -> bool:
    """Whether an earlier part of the run has taken its last step."""
    saved = find_latest(folder, lambda _: None)
    return saved is not None and saved.step == steps


def _open_metrics(run: Run, stack: ExitStack) -> Metrics | None:
    """The file of metrics, on the first rank; where it cannot be opened, all of them are told."""
    board = run.folder / "tensorboard" if run.settings.log.tensorboard else None
    opened: list[Metrics] = []

    def open_one() -> None:
        metrics = Metrics(run.folder / METRICS_NAME, tensorboard=board)
        opened.append(stack.enter_context(metrics))

    first_rank(open_one)
    return opened[0] if opened else None


def _forget(folder: Path) -> None:
    """Remove the checkpoints of an earlier run."""
    whole, damaged = examine(folder)
    for step in sorted({saved.step for saved in whole} | damaged.keys()):
        discard(folder / name_of(step), secrets.token_hex(4), Disk())


def _told(recorder: Recorder) -> Callable[[Written], None]:
    return lambda written: recorder.saved(written.step, written.seconds, written.nbytes)


def _make_loop(
    setup: Setup,
    ranks: Ranks,
    saver: Saver,
    saved: Saved | None,
    recorder: Recorder,
) -> Loop:
    """The loop, where the run begins or goes on."""
    step = saved.step if saved else None
    seconds = first_rank(lambda: recorder.rewind(step))
    recorder.begin(resumed_at=step, seconds=seconds)
    wanted = first_rank(lambda: recorder.recall(finished=step == setup.run.steps))
    probe = _make_probe(setup, ranks, recorder)
    _measure_base(setup, ranks, recorder, probe, wanted=wanted)
    gc.collect()  # sharded modules hold each other
    engine = setup.run.settings.engine
    learner = make_learner(
        setup.model, setup.checkpoint, ranks, engine, first_trained=setup.first_trained
    )
    if probe is not None:
        probe.remember(learner, setup.model.layers)
    objective, measured = _objectives(setup, ranks, learner)
    gc.collect()
    loop = Loop(setup, ranks, learner, objective, measured, saver, recorder, probe)
    if saved is not None:
        state = training_state(learner, loop.optimizer)
        saver.load(saved, state)
        restore_training_state(learner, loop.optimizer, state)
        loop.take_up(saved.step, saved.meta["guard"])
        finished = saved.step == setup.run.steps
        recorder.say("all steps are taken" if finished else f"going on from step {saved.step}")
    return loop


def _objectives(setup: Setup, ranks: Ranks, learner: Learner) -> tuple[Objective, Objective]:
    """What the stage learns, and what is measured; the model has its first weights still."""
    run = setup.run
    if run.settings.stage != "dpo":
        return NextToken(), NextToken()
    checkpoint, reference = setup.checkpoint, learner
    if setup.reference is not None:
        checkpoint = setup.reference
        reference = _frozen_learner(setup, ranks, checkpoint)[0]
    identity = fingerprint_of(checkpoint)

    def log_probs(shards: TokenShards) -> Tensor:
        return reference_log_probs(run, shards, reference, identity, ranks)

    learned = [log_probs(source.shards) for source in setup.data.sources]
    measured = [] if setup.held_out is None else [log_probs(setup.held_out.shards)]
    settings = run.settings.dpo
    return Preferred(settings, learned), Preferred(settings, measured or learned)


def _frozen_learner(
    setup: Setup, ranks: Ranks, checkpoint: Checkpoint
) -> tuple[Learner, LanguageModel]:
    """Another model on the same ranks, to be measured only."""
    engine = setup.run.settings.engine
    model = open_model(checkpoint, engine, ranks.device)
    for parameter in model.module.parameters():
        parameter.requires_grad_(False)
    return make_learner(model, checkpoint, ranks, engine), model


def _make_probe(setup: Setup, ranks: Ranks, recorder: Recorder) -> SeamProbe | None:
    """A look at the seams on a few samples; None where there is nothing to look at.

    They are held-out ones, or, where nothing is held out, the first that are learned from.
    """
    seams = find_seams(setup.layer_map)
    measured = measurable(seams, setup.base_names)
    for text in left_out(setup.layer_map, seams, measured):
        recorder.say(text)
    if not measured:
        return None
    if setup.held_out is not None:
        samples = setup.held_out.samples
    else:
        samples = tuple(setup.data.sample(index) for index in range(_PROBED))
    chosen = [sample for sample in samples if (sample.labels != IGNORED).any()][:_PROBED]
    if not chosen:
        return None
    return SeamProbe(measured, [batch.to(ranks.device) for batch in shares(chosen, ranks, 1)])


def _measure_base(
    setup: Setup, ranks: Ranks, recorder: Recorder, probe: SeamProbe | None, *, wanted: bool
) -> None:
    """What the base model's layers get at the seams; its held-out loss where it is wanted."""
    base, held_out = setup.baseline, setup.held_out
    compared = probe is not None and probe.needs_base
    if base is None or held_out is None or not (wanted or compared):
        return
    learner, model = _frozen_learner(setup, ranks, base)
    if wanted:
        micro = setup.run.settings.batch.micro
        found = evaluate(learner, held_out.samples, NextToken(), ranks, micro)
        recorder.base(base.path.name, found)
    if probe is not None:
        probe.remember_base(learner, model.layers)


def _configuration(setup: Setup) -> dict[str, Any]:
    """All that decides what is learned: a resumed run has to have the same."""
    return {
        "settings": setup.run.settings.model_dump(mode="json"),
        "model": fingerprint_of(setup.checkpoint),
        "data": [source.shards.identity for source in setup.data.sources],
    }


def _check_same(run: Run, saved: Saved, configuration: Mapping[str, Any]) -> None:
    """Whether a checkpoint is of this training.

    Raises:
        ResumeError: it is not; names every setting that differs.
    """
    before = dict(saved.meta["run"])
    with suppress(ValidationError):  # then the settings differ, as they shall
        # Settings that an earlier version did not know have had their defaults.
        before["settings"] = RunFile.model_validate(before["settings"]).model_dump(mode="json")
    free = {f"settings.{path}" for path in FREE}
    if problems := differences(before, configuration, free=free):
        error = ResumeError.of(map(_in_run_file, problems))
        error.add_note(f"{saved.path} was saved by a run with other settings than {run.path}")
        error.add_note("'tensorsurgeon train --no-resume' begins anew, and forgets it")
        raise error


def _in_run_file(problem: Problem) -> Problem:
    """A difference by its place in the run file; the digests of what is read there say nothing."""
    if problem.where.startswith("settings."):
        return replace(problem, where=problem.where.removeprefix("settings."))
    where = problem.where.replace("data.", "data.train.")
    return replace(problem, where=where, what="is another than when this run began")


@contextmanager
def _signals(loop: Loop) -> Iterator[None]:
    """SIGTERM, SIGHUP and Ctrl-C end the loop after the step it is in, once that is saved."""

    def note(number: int, _: object) -> None:
        if loop.stopping and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice
        loop.stopping = number

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    heeded = [n for n in numbers if signal.getsignal(n) is not signal.SIG_IGN]  # as under nohup
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _finish(
    setup: Setup,
    ranks: Ranks,
    loop: Loop,
    recorder: Recorder,
    export: Export | None,
    number: int,
    *,
    overwrite: bool,
) -> Outcome:
    """The end of a run, or of this part of it: the checkpoint that comes out, and the report."""
    run = setup.run
    path = None
    if not number:
        path = write_result(setup, export, recorder, overwrite=overwrite)
    else:
        recorder.say(f"stopped after step {loop.step}, which is saved: the same command goes on")
    recorder.end(loop.step, "terminated" if number else "finished")
    report = run.folder / REPORT_NAME
    if ranks.is_first:
        write_report([run.folder / METRICS_NAME], report, title=setup.checkpoint.path.name)
    return Outcome(
        signal=number,
        step=loop.step,
        path=path,
        report=report,
        first=recorder.first,
        last=recorder.last,
    )
