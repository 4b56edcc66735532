"""What the proof found: every run, every claim with what it rests on, and the tables of both."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.bench.tables import Table


@dataclass(frozen=True, kw_only=True)
class Run:
    """One process. Seconds and bytes.

    Attributes:
        what: which program, at which size.
        layers: depth of its models.
        read: bytes of its input.
        written: bytes of its output, 0 where it left none.
        limit: the hard limit; None where there was none.
        peak: its peak resident memory.
        ended: how, in words.
        cgroup: what its own cgroup counted; empty where it had none.
    """

    what: str
    layers: int
    read: int
    written: int
    limit: int | None
    peak: int
    wall: float
    cpu: float
    ended: str
    cgroup: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What is to be proved, whether it holds, and what was found."""

    text: str
    holds: bool
    found: str


@dataclass(kw_only=True)
class MergeResult:
    """Everything found about one kind of merge."""

    title: str
    note: str = ""
    """Where the models had to be smaller than wanted: how much and why."""
    runs: list[Run] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)


@dataclass(kw_only=True)
class Results:
    """One run of the proof."""

    date: str
    scale: str
    engine: str
    limit: str
    """The kind of limit, with what counts against it."""
    refused: list[str]
    """The kinds that would have been better, and why they cannot be had."""
    machine: dict[str, str]
    versions: dict[str, str]
    merges: list[MergeResult] = field(default_factory=list)

    @property
    def failing(self) -> list[Claim]:
        """The claims that do not hold."""
        return [claim for merge in self.merges for claim in merge.claims if not claim.holds]


def markdown(results: Results) -> str:
    """Two tables, the kind of limit before them, the conditions after."""
    return "\n\n".join(_blocks(results)) + "\n"


def _blocks(results: Results) -> Iterator[str]:
    yield f"Limit: {results.limit}."
    if results.refused:
        yield "Not to be had here:\n" + "\n".join(f"- {reason}" for reason in results.refused)
    yield _runs(results).markdown()
    yield _claims(results).markdown()
    machine = results.machine
    place = ", ".join(
        (machine["cpu"], f"{machine['cores']} cores", *(machine[k] for k in ("memory", "kernel")))
    )
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    yield f"{place}, {machine['filesystem']}; {versions}; {results.date[:10]}."


def _runs(results: Results) -> Table:
    columns = ["run", "layers", "input GB", "output GB", "limit MB", "peak MB", "seconds", "ended"]
    return Table(
        title="Whole processes under a hard limit of memory",
        columns=["merge", *columns],
        names=2,
        rows=[
            [
                merge.title,
                run.what,
                str(run.layers),
                f"{run.read / 1e9:.2f}",
                f"{run.written / 1e9:.2f}",
                "none" if run.limit is None else f"{run.limit / 1e6:.0f}",
                f"{run.peak / 1e6:.1f}",
                f"{run.wall:.1f}",
                run.ended,
            ]
            for merge in results.merges
            for run in merge.runs
        ],
        note=" ".join(
            ["Peak: VmHWM of the process.", *(merge.note for merge in results.merges if merge.note)]
        ),
    )


def _claims(results: Results) -> Table:
    return Table(
        title="Claims",
        columns=["merge", "claim", "found", "holds"],
        names=4,
        rows=[
            [merge.title, claim.text, claim.found, "yes" if claim.holds else "**no**"]
            for merge in results.merges
            for claim in merge.claims
        ],
    )
