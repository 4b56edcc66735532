"""`--dry-run`: what a training would take, told without a weight being read."""

import json
import os
from dataclasses import asdict, replace

import torch

from tensorsurgeon.trainer.forecast import forecast_text, make_forecast
from tensorsurgeon.trainer.parallel import choose_device, choose_precision
from tensorsurgeon.trainer.result import check_output
from tensorsurgeon.trainer.resume import find_latest
from tensorsurgeon.trainer.run_file import Run
from tensorsurgeon.trainer.setup import set_up


def dry_run_text(
    run: Run, *, ranks: int | None, as_json: bool, resume: bool = True, overwrite: bool = False
) -> str:
    """The forecast of a run file as text, or as JSON.

    Args:
        run: the run file.
        ranks: how many will share the work; by default as many as torchrun started, else one.
        as_json: whether a program reads it.
        resume: whether the training would go on from the newest checkpoint.
        overwrite: whether it may replace a checkpoint at the output's path.

    Raises:
        TensorSurgeonError: what in the run file, the model, the data or the output's place would
            keep the training from beginning, or that all its checkpoints are damaged. Whether it
            may go on from the one that is there, and whether another is at work in its folder, the
            training alone finds out.
    """
    size = ranks or int(os.environ.get("WORLD_SIZE", "1"))
    engine = run.settings.engine
    if engine.device == "cuda" and not torch.cuda.is_available():
        # For a GPU elsewhere; which attention works there cannot be told from here.
        kind, precision = "cuda", torch.float32 if engine.precision == "float32" else torch.bfloat16
        plain = engine.model_copy(update={"attention": "auto", "device": "cpu"})
        here = replace(run, settings=run.settings.model_copy(update={"engine": plain}))
        setup = set_up(here, device=torch.device("cpu"), ranks=size)
    else:
        device = choose_device(engine.device)
        kind, precision = device.type, choose_precision(engine.precision, device)
        setup = set_up(run, device=device, ranks=size)
    saved = find_latest(run.folder / "checkpoints", lambda _: None) if resume else None
    finished = saved is not None and saved.step == run.steps
    check_output(setup, overwrite=overwrite, finished=finished)
    forecast = make_forecast(setup, ranks=size, precision=precision, device=kind)
    named = str(precision).removeprefix("torch.")
    if as_json:
        told = {**asdict(forecast), "peak": forecast.peak}
        return json.dumps({**told, "ranks": size, "device": kind, "precision": named}, indent=2)
    return forecast_text(forecast, ranks=size, device=kind, precision=named)
