"""`python -m tests.low_memory`: merges models many times as large as a hard limit of memory.

Exit code 0 if every claim holds, 1 if one does not or cannot be tried here.
"""

import json
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from tests.bench import machine
from tests.bench.jobs import OURS, ROOT
from tests.low_memory.limits import KINDS, LimitError, first_that_holds
from tests.low_memory.proof import MERGES, Proof
from tests.low_memory.results import Results, markdown


@click.command(context_settings={"show_default": True})
@click.option("--scale", type=click.Choice(list(MERGES)), default="7B", help="Size of the models.")
@click.option("--limit", "kind", type=click.Choice(KINDS), help="The only kind of limit to try.")
@click.option("--engine", default=OURS, metavar="MODULE", help="What merges.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT / ".bench",
    show_default=".bench",
    help="Where models, outputs and low_memory.json go.",
)
def main(scale: str, kind: str | None, engine: str, folder: Path) -> None:
    """Prove that merges keep within a hard limit of memory, whatever the models' size."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="low-memory-", dir=folder) as work:
        try:
            results = prove(scale, kind, engine, Path(work).resolve())
        except (LimitError, ValueError) as error:
            raise click.ClickException(str(error)) from error
    report = folder / "low_memory.json"
    report.write_text(json.dumps(asdict(results), indent=2) + "\n")
    click.echo(markdown(results))
    say(f"written to {report}")
    for claim in results.failing:
        say(f"does not hold: {claim.text} ({claim.found})")
    sys.exit(1 if results.failing else 0)


def prove(scale: str, kind: str | None, engine: str, work: Path) -> Results:
    """Find a limit, and prove every merge of a scale under it."""
    limit, refused = first_that_holds(work, kind)
    for reason in refused:
        say(f"not to be had here: {reason}")
    say(f"limit: {limit.title}")
    versions = machine.versions()
    results = Results(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        scale=scale,
        engine=engine,
        limit=limit.title,
        refused=refused,
        machine=machine.describe(work),
        versions={name: versions[name] for name in (OURS, "python", "numpy")},
    )
    proof = Proof(folder=work, limit=limit, engine=engine, say=say)
    results.merges.extend(proof.prove(merge) for merge in MERGES[scale])
    return results


def say(line: str) -> None:
    """Progress goes to stderr; stdout is for the tables."""
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
