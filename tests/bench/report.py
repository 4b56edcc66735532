"""The benchmark's results as tables."""

from tests.bench.jobs import FLOOR, OURS, PEER
from tests.bench.measure import Measurement
from tests.bench.results import JobResult, Results, wall
from tests.bench.streaming import DOWNLOAD, THREADS
from tests.bench.tables import Table

ABSENT = "skipped"

# The least share of elements more than 1 ulp apart that is pointed out.
NOTABLE_SHARE = 0.01


def cpu(run: Measurement) -> float:
    """CPU seconds."""
    return run.cpu


def resident(run: Measurement) -> float:
    """Peak resident bytes."""
    return run.peak_resident


def anonymous(run: Measurement) -> float:
    """Peak anonymous bytes."""
    return run.peak_anonymous


def tables(results: Results) -> list[Table]:
    """Everything there is to show; a part that was not run has no table."""
    parts = (_time, _runs, _agreement, _costs, _streaming, _start, _flatness)
    return [table for part in parts if (table := part(results)).rows]


def markdown(results: Results) -> str:
    """All tables, and the machine and versions in a line below them."""
    blocks = [table.markdown() for table in tables(results)]
    return "\n\n".join([*blocks, _conditions(results)]) + "\n"


def readme(results: Results) -> str:
    """Times, memory, the costs of safety and streams, with the machine and versions."""
    shown = [table for part in (_time, _costs, _streaming) if (table := part(results)).rows]
    return "\n\n".join([*(table.markdown() for table in shown), _conditions(results)]) + "\n"


def _conditions(results: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    machine = results.machine
    place = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory']}, "
        f"{machine['kernel']}, {machine['filesystem']}"
    )
    return f"{place}; {versions}; {results.date[:10]}."


def _time(results: Results) -> Table:
    return Table(
        title=f"Wall seconds, {results.scale} in bf16 ({results.parameters / 1e9:.2f}B parameters)",
        columns=[
            "job",
            *(OURS, PEER, FLOOR),
            *(f"against {PEER}", f"against the {FLOOR}"),
            *(f"peak MB, {OURS}", f"peak MB, {PEER}"),
        ],
        rows=[
            [
                job.title,
                *(_seconds(job.median(program, wall)) for program in (OURS, PEER, FLOOR)),
                _inverse(job.ratio(OURS, PEER)),
                _times(job.ratio(OURS, FLOOR)),
                *(_megabytes(job.median(program, resident)) for program in (OURS, PEER)),
            ]
            for job in results.jobs.values()
        ],
        note=(
            "Whole processes until their output is flushed: medians, and medians of the ratios "
            "within a round. Floor: every input read once, as many bytes written and flushed, "
            f"two threads, {results.floor_write} writes."
        ),
    )


def _runs(results: Results) -> Table:
    cache = "warm" if results.cache_is_warm else "too small for the inputs, so partly cold"
    return Table(
        title="Spread, CPU and peak memory",
        columns=["job", "program", "runs", "wall s", "CPU s", "resident MB", "anonymous MB"],
        names=2,
        rows=[
            [
                job.title,
                program,
                str(len(runs)),
                _spread(job, program),
                _seconds(job.median(program, cpu)),
                _megabytes(job.median(program, resident)),
                _megabytes(job.median(program, anonymous)),
            ]
            for job in results.jobs.values()
            for program, runs in job.runs.items()
        ],
        note=(
            "Wall: least to greatest, the others medians. Anonymous memory is sampled at 50 Hz. "
            f"Page cache {cache}."
        ),
    )


def _agreement(results: Results) -> Table:
    compared = [(job.title, job.agreement) for job in results.jobs.values() if job.agreement]
    notable = [
        title for title, found in compared if found.beyond_one_ulp > NOTABLE_SHARE * found.elements
    ]
    return Table(
        title=f"Difference of the outputs of {OURS} and {PEER}",
        columns=["job", "tensors", "elements differing", "by more than 1 ulp", "at most, ulp"],
        rows=[
            [
                title,
                str(found.tensors),
                _share(found.differing, found.elements),
                _share(found.beyond_one_ulp, found.elements),
                str(found.max_ulp),
            ]
            for title, found in compared
        ],
        note=f"More than 1 ulp apart on over {NOTABLE_SHARE:.0%}: {', '.join(notable)}."
        if notable
        else "",
    )


def _costs(results: Results) -> Table:
    rows = []
    for cost in results.costs:
        ours, other = cost.runs
        rows.append(
            [
                *(cost.title, other),
                *(_seconds(cost.median(program, wall)) for program in (ours, other)),
                _times(cost.ratio(ours, other)),
            ]
        )
    return Table(
        title="What safety costs, wall seconds",
        columns=["command", "against", OURS, "the other", "ratio"],
        names=2,
        rows=rows,
        note=(
            "Medians, and medians of the ratios within a round. Hashing: the same files, read in "
            "order by two threads."
        ),
    )


def _streaming(results: Results) -> Table:
    return Table(
        title="Streaming (`--stream`), MB of tensors per second",
        columns=["job", "line", OURS, DOWNLOAD, "ratio", f"peak MB, {OURS}"],
        names=2,
        rows=[
            [
                *(merge.title, line),
                *(_rate(merge, program) for program in (OURS, DOWNLOAD)),
                _share_of_line(merge.ratio(DOWNLOAD, OURS)),
                _megabytes(merge.median(OURS, resident)),
            ]
            for line, merges in results.streaming.items()
            for merge in merges
        ],
        note=(
            "Whole processes, empty cache, the server on the same machine. Bare download: the same "
            f"ranges by the same client, {THREADS} connections, nothing computed or written. "
            "Over the loopback all share the processors; the slower line is shared by all "
            "connections, and each answer takes so long to begin."
        ),
    )


def _start(results: Results) -> Table:
    return Table(
        title="Start, wall seconds",
        columns=["command", "median of 5"],
        rows=[[command, f"{seconds:.3f}"] for command, seconds in results.start_seconds.items()],
    )


def _flatness(results: Results) -> Table:
    sizes = list(results.flatness[0].peaks) if results.flatness else []
    return Table(
        title=f"Memory flatness: peak resident MB of {OURS} as the model grows",
        columns=["job", *sizes, "spread"],
        rows=[
            [row.title, *map(_megabytes, row.peaks.values()), f"{row.spread:.1%}"]
            for row in results.flatness
        ],
        note="x1 has 272M parameters; doubled in depth. Spread: greatest over least, less one.",
    )


def _spread(job: JobResult, program: str) -> str:
    walls = [run.wall for run in job.runs[program]]
    return f"{_seconds(min(walls))} to {_seconds(max(walls))}"


def _seconds(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _rate(merge: JobResult, program: str) -> str:
    seconds = merge.median(program, wall)
    return ABSENT if seconds is None else f"{merge.bytes_read / seconds / 1e6:.0f}"


def _share_of_line(ratio: float | None) -> str:
    return ABSENT if ratio is None else f"{ratio:.0%}"


def _megabytes(value: float | None) -> str:
    return ABSENT if value is None else f"{value / 1e6:.0f}"


def _share(part: int, whole: int) -> str:
    """A percentage; none is told apart from next to none."""
    return f"{part / whole:.3%}" if part else "none"


def _inverse(ratio: float | None) -> str:
    """1/8.0 for an eighth of the time; as times where we are the slower."""
    if ratio is None or ratio >= 1:
        return _times(ratio)
    return f"1/{1 / ratio:.1f}"


def _times(ratio: float | None) -> str:
    return ABSENT if ratio is None else f"{ratio:.2f}x"
