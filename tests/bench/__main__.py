"""`python -m tests.bench`: time and memory of the engine against mergekit and the floor.

Every figure is of a whole process that another one started and watched, in alternating order.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from tests.bench import machine, measure, models, report, tables
from tests.bench.costs import measure_costs
from tests.bench.flatness import measure_flatness
from tests.bench.jobs import FLOOR, JOBS, OURS, PEER, PEER_BIN, ROOT, Job, Workspace
from tests.bench.results import Agreement, JobResult, Results
from tests.bench.shapes import SCALES
from tests.bench.streaming import measure_streaming

BENCH = ROOT / ".bench"
README = ROOT / "README.md"
START_RUNS = 5


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The settings of one run, and its steps."""

    workspace: Workspace
    counted: dict[str, int]
    """Runs by program; a program that takes no part is missing."""
    floor_write: str

    def measure_job(self, job: Job) -> JobResult:
        """One uncounted run of each program, the comparison, then the rounds."""
        commands = self._commands(job)
        result = JobResult(
            title=job.title,
            bytes_read=sum(path.stat().st_size for path in self.workspace.inputs(job)),
            bytes_written=job.grown(self.workspace.shape).size,
            runs={program: [] for program in commands},
        )
        for program, command in commands.items():
            result.warm_up[program] = self._attempt(job, program, command, "warm-up")
        if PEER in commands:
            result.agreement = self._compare(job)
        counted = {PEER: min(self.counted.get(PEER, 0), job.peer_runs)}
        for turn in range(max(self.counted.values())):
            for program, command in commands.items():
                if turn < counted.get(program, self.counted[program]):
                    run = self._attempt(job, program, command, f"run {turn + 1}")
                    result.runs[program].append(run)
        for program in commands:
            self.workspace.clear(job, program)
        return result

    def measure_start(self) -> dict[str, float]:
        """Median wall seconds of starting each program, and of what ours starts from."""
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "import numpy": [sys.executable, "-c", "import numpy"],
            f"{OURS} --help": [sys.executable, "-m", "tensorsurgeon", "--help"],
        }
        if PEER in self.counted:
            commands[f"{PEER}-yaml --help"] = [str(PEER_BIN / "mergekit-yaml"), "--help"]
        log = self.workspace.folder / "start.log"
        return {
            name: measure.median_wall(command, log=log, runs=START_RUNS)
            for name, command in commands.items()
        }

    def _commands(self, job: Job) -> dict[str, list[str]]:
        """The programs that can do the job, in the order of a round."""
        commands = {
            OURS: self.workspace.our_command(job),
            FLOOR: self.workspace.floor_command(job, self.floor_write),
        }
        if PEER in self.counted and (command := self.workspace.peer_command(job)):
            commands[PEER] = command
        return commands

    def _attempt(
        self, job: Job, program: str, command: list[str], which: str
    ) -> measure.Measurement:
        """Run once, with nothing left to write from what ran before."""
        output = self.workspace.output(job, program)
        self.workspace.clear(job, program)
        os.sync()
        run = measure.run(command, log=self.workspace.log(job, program), output=output)
        if program == FLOOR:
            self.workspace.clear(job, program)
        say(
            f"{job.name}, {program}, {which}: {run.wall:.2f} s (flush {run.flush:.2f} s), "
            f"CPU {run.cpu:.2f} s, peak {run.peak_resident / 1e6:.0f} MB"
        )
        return run

    def _compare(self, job: Job) -> Agreement:
        """Hold our output against the peer's, in a process of its own."""
        outputs = [str(self.workspace.output(job, program)) for program in (OURS, PEER)]
        agreement = Agreement(**json.loads(run_module("tests.bench.compare", *outputs)))
        say(f"{job.name}: {agreement}")
        if job.exact and agreement.differing:
            raise click.ClickException(f"{job.name}: {OURS} and {PEER} must write the same bits")
        return agreement


def say(line: str) -> None:
    """Progress goes to stderr; stdout is for the tables."""
    click.echo(line, err=True)


def run_module(name: str, *arguments: str) -> str:
    """What a module of the benchmark prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", name, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise click.ClickException(f"{name} {' '.join(arguments)} failed")
    return done.stdout


def build_models(workspace: Workspace, scale: str, jobs: list[Job]) -> None:
    """Build the inputs that are missing, if they and the outputs of a job fit on the disk."""
    shape, folder = workspace.shape, workspace.folder
    folder.mkdir(parents=True, exist_ok=True)
    names = {name for job in jobs for name in job.models}
    missing = sorted(n for n in names if not models.is_complete(shape, workspace.model(n)))
    # The comparison wants two outputs side by side.
    need = len(missing) * shape.size + 2 * max(job.grown(shape).size for job in jobs)
    free = shutil.disk_usage(folder).free
    if need > free:
        raise click.ClickException(
            f"{folder} needs {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free\n"
            "  fix: make room, or choose a smaller --scale or fewer --jobs"
        )
    run_module("tests.bench.weights", scale, str(folder / "models"), *missing)


def cache_is_warm(workspace: Workspace, jobs: list[Job]) -> bool:
    """Whether the inputs of each job stay in the page cache from one run to the next."""
    return workspace.shape.size * max(len(job.models) for job in jobs) < (
        machine.memory("MemAvailable") / 2
    )


def chosen_jobs(_context: click.Context, _parameter: click.Parameter, names: str) -> list[Job]:
    """The entries of the job table that `--jobs` names."""
    unknown = [name for name in names.split(",") if name not in JOBS]
    if unknown:
        raise click.BadParameter(f"no job {', '.join(unknown)}; known: {', '.join(JOBS)}")
    return [JOBS[name] for name in names.split(",")]


def write_results(folder: Path, results: Results) -> None:
    """results.json with every run, results.md with the tables."""
    (folder / "results.json").write_text(json.dumps(asdict(results), indent=2) + "\n")
    (folder / "results.md").write_text(report.markdown(results))


@click.command(context_settings={"show_default": True})
@click.option("--scale", type=click.Choice(list(SCALES)), default="1.1B", help="Size of a model.")
@click.option("--jobs", callback=chosen_jobs, default=",".join(JOBS), help="Which jobs.")
@click.option("--runs", type=click.IntRange(min=1), default=5, help="Counted runs of each.")
@click.option("--peer-runs", type=click.IntRange(min=1), default=3, help="The same for mergekit.")
@click.option("--peer/--no-peer", default=True, help="Whether mergekit takes part.")
@click.option(
    "--floor-write",
    type=click.Choice(["early", "direct", "buffered"]),
    default="direct",
    help="How the floor gets its bytes to disk.",
)
@click.option("--costs/--no-costs", default=True, help="What digests, journal, verify cost.")
@click.option("--streaming/--no-streaming", default=True, help="Streams against downloads.")
@click.option("--flatness/--no-flatness", default=True, help="Peak memory at growing sizes.")
@click.option("--update-readme", is_flag=True, help="Put the tables into README.md.")
def main(
    scale: str,
    jobs: list[Job],
    runs: int,
    peer_runs: int,
    peer: bool,
    floor_write: str,
    costs: bool,
    streaming: bool,
    flatness: bool,
    update_readme: bool,
) -> None:
    """Time the engine, mergekit and the floor on synthetic Llama checkpoints."""
    workspace = Workspace(folder=BENCH / scale, shape=SCALES[scale])
    counted = {OURS: runs, FLOOR: runs}
    if peer and (PEER_BIN / "mergekit-yaml").exists():
        counted[PEER] = peer_runs
    bench = Bench(workspace=workspace, counted=counted, floor_write=floor_write)
    try:
        build_models(workspace, scale, jobs)
        results = Results(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            scale=scale,
            parameters=workspace.shape.parameters,
            floor_write=floor_write,
            cache_is_warm=cache_is_warm(workspace, jobs),
            machine=machine.describe(workspace.folder),
            versions=machine.versions(),
            start_seconds=bench.measure_start(),
        )
        for job in jobs:
            results.jobs[job.name] = bench.measure_job(job)
        if costs and JOBS["linear"] in jobs:
            results.costs = measure_costs(workspace, JOBS["linear"], runs=runs, say=say)
        if streaming and {"a", "b"} <= {name for job in jobs for name in job.models}:
            results.streaming = measure_streaming(
                workspace, BENCH / "streaming", runs=runs, say=say
            )
        if flatness:
            results.flatness.extend(measure_flatness(BENCH / "flatness", jobs))
    except measure.ChildError as error:
        raise click.ClickException(str(error)) from error
    tables.show(report.tables(results))
    write_results(workspace.folder, results)
    if update_readme:
        readme = tables.replace_in_readme(README.read_text(), report.readme(results))
        README.write_text(readme)


if __name__ == "__main__":
    main()
