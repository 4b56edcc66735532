"""Trains random models of real shapes for a few steps: tokens/s, MFU, memory against the forecast.

    python -m tests.bench_train              on a GPU
    python -m tests.bench_train --rehearse   a tiny model on the processor: does the benchmark work

Each job is a process of its own, `tensorsurgeon train` as a user starts it; speeds are medians over
the steps after the first ones, which compile.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from tensorsurgeon.trainer.data.shard_writer import Document, writing_shards
from tensorsurgeon.trainer.data.shards import tokenizer_digest
from tensorsurgeon.trainer.metrics import read_metrics
from tests.bench import models
from tests.bench.shapes import SCALES, Shape

FOLDER = Path(__file__).parents[2] / ".bench" / "training"
BLOCK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained.

    Attributes:
        name: of the row.
        shape: the model.
        micro: samples computed at a time.
        sequence_length: T.
        wanted: MFU that is to be reached; None for a rehearsal.
        steps: how many, and how many of them are not counted.
    """

    name: str
    shape: Shape
    micro: int
    sequence_length: int
    wanted: float | None
    steps: tuple[int, int] = (30, 10)


GROWN = SCALES["135M"].with_layers(44)
TINY = Shape(layers=2, hidden=32, intermediate=64, heads=4, kv_heads=2, vocab=512)

JOBS = (
    Job(name="1.1B", shape=SCALES["1.1B"], micro=8, sequence_length=2048, wanted=0.45),
    Job(name="135M, grown", shape=GROWN, micro=16, sequence_length=2048, wanted=0.30),
)
REHEARSAL = (Job(name="tiny", shape=TINY, micro=2, sequence_length=64, wanted=None, steps=(4, 1)),)


def main() -> None:
    """Runs all jobs and prints a table; results go to .bench/training/results.json."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    if not options.rehearse and not torch.cuda.is_available():
        sys.exit("there is no GPU here: the trainer's speed was not measured")
    device = "cpu" if options.rehearse else "cuda"
    rows = [
        measure(job, options.folder, device) for job in (REHEARSAL if options.rehearse else JOBS)
    ]
    (options.folder / "results.json").write_text(json.dumps(rows, indent=2) + "\n")
    print(table(rows))
    if missed := [row["job"] for row in rows if not is_as_wanted(row)]:
        sys.exit(f"not as wanted: {', '.join(missed)}")


def is_as_wanted(row: dict[str, Any]) -> bool:
    """Whether the device was used as well as it should be, and its memory foretold within 10%.

    On a device whose peak is not known, nobody can tell: it is not.
    """
    if row["wanted"] is None:
        return True
    used = row["mfu"] is not None and row["mfu"] >= row["wanted"]
    return used and abs(row["forecast"] / row["memory"] - 1) <= 0.1


def measure(job: Job, folder: Path, device: str) -> dict[str, Any]:
    """A row: what a training of this job did, and what its forecast said."""
    place = folder / job.name.replace(", ", "-")
    run = prepare(job, place, device)
    forecast = json.loads(train(run, "--dry-run", "--json"))
    train(run, "--no-resume", "--quiet")
    events = read_metrics(place / "run" / "metrics.jsonl")
    first = next(event for event in events if event["event"] == "run")
    steps = [event for event in events if event["event"] == "step"][job.steps[1] :]
    used = [step["mfu"] for step in steps if step["mfu"] is not None]
    return {
        "job": job.name,
        "parameters": first["parameters"],
        "device": first["device"],
        "versions": first["versions"],
        "tokens_per_second": statistics.median(step["tokens_per_second"] for step in steps),
        "mfu": statistics.median(used) if used else None,
        "wanted": job.wanted,
        "memory": max(step["memory"] for step in steps),
        "forecast": forecast["peak"],
    }


def prepare(job: Job, place: Path, device: str) -> Path:
    """The model, the tokens and the run file of a job."""
    model, tokens = place / "model", place / "tokens"
    if not models.is_complete(job.shape, model):
        models.write(job.shape, model, fill_randomly)
        (model / "tokenizer.json").write_text("{}\n")
    write_tokens(job, tokens, tokenizer_digest(model))
    settings = {
        "model": "./model",
        "folder": "./run",
        "data": {"train": "./tokens", "sequence_length": job.sequence_length},
        "steps": job.steps[0],
        "batch": {"sequences": job.micro, "micro": job.micro},
        "optimizer": {"learning_rate": 1e-5},
        "checkpoint": {"every": 1_000_000},
        "log": {"layers": 1_000_000},
        "engine": {"device": device},
    }
    run = place / "run.yaml"
    run.write_text(json.dumps(settings, indent=2))
    return run


def fill_randomly(file: BinaryIO, elements: int) -> None:
    """Normal numbers in bf16: a GPU works slower on these than on zeros."""
    values = np.random.default_rng(0).normal(0, 0.02, min(elements, BLOCK)).astype("<f4")
    halves = (values.view("<u4") >> 16).astype("<u2").tobytes()
    for start in range(0, elements, BLOCK):
        file.write(halves[: 2 * min(BLOCK, elements - start)])


def write_tokens(job: Job, folder: Path, tokenizer: str) -> None:
    """Random documents, 600 tokens long on average, enough for all steps."""
    draw = np.random.default_rng(0)
    left = prod((job.steps[0] + 1, job.micro, job.sequence_length))
    with writing_shards(
        folder,
        kind="text",
        tokenizer=tokenizer,
        vocabulary=job.shape.vocab,
        end_of_document=2,
        overwrite=True,
    ) as writer:
        while left > 0:
            length = int(draw.exponential(600)) + 2
            tokens = draw.integers(3, job.shape.vocab, length)
            writer.add([Document(tokens=tokens, answers=None)])
            left -= length


def train(run: Path, *options: str) -> str:
    """`tensorsurgeon train`; its stdout."""
    command = [sys.executable, "-m", "tensorsurgeon", "train", str(run), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| model | parameters | tokens/s | MFU | wanted | peak memory | forecast | off by |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        mfu = "-" if row["mfu"] is None else f"{row['mfu']:.0%}"
        wanted = "-" if row["wanted"] is None else f"{row['wanted']:.0%}"
        off = row["forecast"] / row["memory"] - 1
        lines.append(
            f"| {row['job']} | {row['parameters'] / 1e6:,.0f} M | {row['tokens_per_second']:,.0f} "
            f"| {mfu} | {wanted} | {row['memory'] / 1e9:.1f} GB | {row['forecast'] / 1e9:.1f} GB "
            f"| {off:+.0%} |"
        )
    told = ", ".join(f"{name} {version}" for name, version in rows[0]["versions"].items())
    return "\n".join([*lines, "", f"{rows[0]['device']}; {told}."])


if __name__ == "__main__":
    main()
