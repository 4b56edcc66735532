"""What safety costs: a merge without digests and journal, and verify against bare hashing."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench import measure
from tests.bench.jobs import OURS, Job, Workspace
from tests.bench.results import JobResult

WITHOUT = "without digests and journal"
HASHING = "read and SHA-256"

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Program:
    """One of the two that are compared.

    Attributes:
        name: what the tables call it.
        command: program and arguments.
        output: what it writes, removed before each run.
    """

    name: str
    command: list[str]
    output: Path | None = None


def measure_costs(workspace: Workspace, job: Job, *, runs: int, say: Say) -> list[JobResult]:
    """Both comparisons on one job, in alternating runs after one of each that is not counted."""
    made, bare = workspace.output(job, OURS), workspace.output(job, "unrecorded")
    apply = [
        Program(name=OURS, command=workspace.our_command(job), output=made),
        Program(
            name=WITHOUT,
            command=workspace.our_command(job, module="tests.bench.unrecorded", out=bare),
            output=bare,
        ),
    ]
    size = job.grown(workspace.shape).size
    found = [_compare(f"apply, {job.title}", apply, workspace.folder, runs, say, written=size)]
    shutil.rmtree(bare)
    floor = str(Path(__file__).with_name("hashing.py"))
    shards = [str(path) for path in sorted(made.glob("*.safetensors"))]
    threads = ["--threads", "2"]
    verify = [
        Program(
            name=OURS,
            command=[sys.executable, "-m", "tensorsurgeon", "verify", str(made), "-q", *threads],
        ),
        Program(name=HASHING, command=[sys.executable, "-I", "-S", floor, *shards]),
    ]
    found.append(_compare("verify", verify, workspace.folder, runs, say, read=size))
    shutil.rmtree(made)
    return found


def _compare(
    title: str,
    programs: list[Program],
    folder: Path,
    runs: int,
    say: Say,
    *,
    read: int = 0,
    written: int = 0,
) -> JobResult:
    result = JobResult(title=title, bytes_read=read, bytes_written=written)
    for program in programs:
        result.warm_up[program.name] = _attempt(program, folder)
        result.runs[program.name] = []
    for _ in range(runs):
        for program in programs:
            run = _attempt(program, folder)
            result.runs[program.name].append(run)
            say(f"{title}, {program.name}: {run.wall:.2f} s, CPU {run.cpu:.2f} s")
    return result


def _attempt(program: Program, folder: Path) -> measure.Measurement:
    if program.output is not None:
        shutil.rmtree(program.output, ignore_errors=True)
    os.sync()
    return measure.run(program.command, log=folder / "costs.log", output=program.output)
