"""The proof of low memory: each merge under its limit, the control, growing depth, equal bytes."""

import hashlib
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.jobs import JOBS, OURS, Job, Workspace
from tests.bench.shapes import SCALES, Shape
from tests.low_memory import sparse
from tests.low_memory.limits import Limit, Outcome, run_without_limit
from tests.low_memory.results import Claim, MergeResult, Run

TIMES_THE_LIMIT = 8
"""The least size of one model, in limits."""

FLAT = 0.10
"""How far the greatest peak may be above the least as depth doubles twice."""

BUDGET_SHARE = 0.75
"""The part of the limit that is handed to --max-memory, a budget of resident memory alone."""

CONTROL = "tests.low_memory.control"

TINY = Shape(layers=4, hidden=64, intermediate=128, heads=4, kv_heads=2, vocab=256)
"""A model that the control can load within any limit."""

MANIFEST = "tensorsurgeon.json"


@dataclass(frozen=True, kw_only=True)
class Merge:
    """A job, the shape of its models, and the limit in bytes that it is to keep to."""

    job: Job
    shape: Shape
    limit: int

    @property
    def budget(self) -> int:
        """What the command line is told to keep to, in bytes."""
        return int(self.limit * BUDGET_SHARE)

    @property
    def frugal(self) -> Job:
        """The job as a user with little memory asks for it."""
        arguments = (*self.job.arguments, "--max-memory", f"{self.budget // 1_000_000}MB")
        return replace(self.job, arguments=arguments)


# Layers of about 22 MB, so that depth makes the size.
_NARROW = Shape(layers=0, hidden=1024, intermediate=2816, heads=16, kv_heads=4, vocab=2000)

MERGES = {
    "7B": [
        Merge(job=JOBS["slerp"], shape=SCALES["7B"], limit=512_000_000),
        Merge(job=JOBS["dus"], shape=SCALES["7B"], limit=128_000_000),
    ],
    # The least limits that leave room for an interpreter, numpy and one thread, and the budgets
    # not close to where one more thread would fit.
    "small": [
        Merge(job=JOBS["slerp"], shape=_NARROW.with_layers(43), limit=120_000_000),
        Merge(job=JOBS["dus"], shape=_NARROW.with_layers(28), limit=78_000_000),
    ],
}


def halved(shape: Shape) -> Shape:
    """The deepest model of no more than half the size."""
    depths = range(shape.layers // 2 + 1, 0, -1)
    smaller = (shape.with_layers(layers) for layers in depths)
    return next(other for other in smaller if 2 * other.size <= shape.size)


def fitted(merge: Merge, free: int) -> Merge:
    """The merge with as many layers as the disk has room for.

    Args:
        merge: what is wanted.
        free: bytes of disk.

    Raises:
        ValueError: then the models would be smaller than 8 times the limit.
    """
    for layers in range(merge.shape.layers, 0, -1):
        shape = merge.shape.with_layers(layers)
        if shape.size < TIMES_THE_LIMIT * merge.limit:
            break
        if room_for(merge.job, shape) <= free:
            return replace(merge, shape=shape)
    raise ValueError(
        f"{merge.job.title} needs {room_for(merge.job, shape) / 1e9:.1f} GB of disk, "
        f"{free / 1e9:.1f} GB are free"
    )


def room_for(job: Job, shape: Shape) -> int:
    """Bytes of disk: one output, the weights that the inputs do hold, and a little more."""
    return int(1.02 * job.grown(shape).size) + len(job.models) * shape.size // 64


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What all steps share.

    Attributes:
        folder: for models, outputs and logs.
        limit: the kind of limit.
        engine: the module that merges.
        say: takes a line of progress.
    """

    folder: Path
    limit: Limit
    engine: str
    say: Callable[[str], None]

    def prove(self, wanted: Merge) -> MergeResult:
        """Run one merge in all ways, and judge every claim about it.

        Raises:
            ValueError: the disk is too small.
            LimitError: the limit could not be set.
        """
        merge = fitted(wanted, shutil.disk_usage(self.folder).free)
        result = MergeResult(title=merge.job.title)
        if merge.shape != wanted.shape:
            result.note = (
                f"{merge.job.title}: {merge.shape.layers} of {wanted.shape.layers} layers, for "
                "want of disk."
            )
        self._merge_under_limit(merge, result)
        self._run_control(merge, result)
        return result

    def _merge_under_limit(self, merge: Merge, result: MergeResult) -> None:
        """The merge itself, its bytes without the limit, and its peak at lesser depths."""
        shape, job = merge.shape, merge.frugal
        times = shape.size / merge.limit
        result.claims.append(
            Claim(
                text=f"a model is {TIMES_THE_LIMIT} times the limit or more",
                holds=times >= TIMES_THE_LIMIT,
                found=f"{times:.1f} times",
            )
        )
        full, limited = self._run(result, "all layers", job, shape, limit=merge.limit, digest=True)
        ends = Claim(
            text=f"it ends within {merge.limit / 1e6:.0f} MB",
            holds=not full.code and full.peak_resident <= merge.limit,
            found=f"{full.how}, peak {full.peak_resident / 1e6:.1f} MB",
        )
        result.claims.append(ends)
        if full.code:
            self.say(full.tail)
            return
        _, free = self._run(result, "without limit", merge.job, shape, limit=None, digest=True)
        result.claims.append(
            Claim(
                text="bytes are equal with and without the limit",
                holds=bool(limited) and limited == free,
                found=f"SHA-256 of {len(limited)} files, the manifest but for `created` included",
            )
        )
        half = halved(shape)
        peaks = [full.peak_resident]
        for what, smaller in (("half", half), ("a quarter", halved(half))):
            outcome, _ = self._run(result, what, job, smaller, limit=merge.limit)
            # One that failed is as far from flat as can be.
            peaks.append(0 if outcome.code else outcome.peak_resident)
        spread = max(peaks) / min(peaks) - 1 if min(peaks) else float("inf")
        result.claims.append(
            Claim(
                text=f"its peak differs by less than {FLAT:.0%} as the model doubles twice",
                holds=spread < FLAT,
                found=f"{spread:.1%}",
            )
        )

    def _run_control(self, merge: Merge, result: MergeResult) -> None:
        """The control dies where the engine lives, of the limit, and of nothing else."""
        job = merge.frugal
        dead, _ = self._run(
            result, "control", job, merge.shape, limit=merge.limit, module=CONTROL, digest=False
        )
        result.claims.append(
            Claim(
                text="a program that loads everything dies of the same limit",
                holds=self.limit.died_of_it(dead),
                found=dead.how,
            )
        )
        alive = [
            self._run(result, what, job, TINY, limit=limit, module=CONTROL)[0]
            for what, limit in (
                ("control, tiny", merge.limit),
                ("control, tiny, without limit", None),
            )
        ]
        result.claims.append(
            Claim(
                text="that program merges a tiny model, with and without the limit",
                holds=not any(outcome.code for outcome in alive),
                found=", ".join(outcome.how for outcome in alive),
            )
        )

    def _run(
        self,
        result: MergeResult,
        what: str,
        job: Job,
        shape: Shape,
        *,
        limit: int | None,
        module: str | None = None,
        digest: bool = False,
    ) -> tuple[Outcome, dict[str, str]]:
        """Run one program on models of a shape, note it, and remove what it wrote.

        Returns:
            How it ended, and if wanted the digests of all files of its output.
        """
        workspace = self._workspace(job, shape)
        command = workspace.our_command(job, module=module or self.engine)
        log, output = workspace.log(job, OURS), workspace.output(job, OURS)
        if limit is None:
            outcome = run_without_limit(command, log=log)
        else:
            outcome = self.limit.run(command, limit=limit, log=log)
        written = sum(path.stat().st_size for path in output.glob("*.safetensors"))
        run = Run(
            what=what,
            layers=shape.layers,
            read=len(job.models) * shape.size,
            written=written,
            limit=limit,
            peak=outcome.peak_resident,
            wall=outcome.wall,
            cpu=outcome.cpu,
            ended=outcome.how,
            cgroup=outcome.cgroup if limit is not None and self.limit.by_cgroup else {},
        )
        result.runs.append(run)
        self.say(
            f"{job.name}, {what}: {run.ended}, {run.wall:.1f} s, peak {run.peak / 1e6:.1f} MB, "
            f"{run.read / 1e9:.2f} GB of input"
        )
        found = digests(output) if digest and not outcome.code else {}
        shutil.rmtree(output, ignore_errors=True)
        return outcome, found

    def _workspace(self, job: Job, shape: Shape) -> Workspace:
        """A folder of this shape with the models that the job reads."""
        folder = self.folder / f"{shape.hidden}-{shape.layers}"
        workspace = Workspace(folder=folder, shape=shape)
        for seed, name in enumerate(job.models):
            sparse.build(shape, workspace.model(name), seed=seed)
        return workspace


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, read back from disk; the manifest without the block that differs."""

    def digest(path: Path) -> str:
        if path.name == MANIFEST:
            manifest = json.loads(path.read_bytes())
            del manifest["created"]
            return hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(2) as pool:
        return dict(zip((path.name for path in paths), pool.map(digest, paths), strict=True))
