"""What a verification found: a value for programs, text for people."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorsurgeon.errors import Problem, TensorSurgeonError, printable
from tensorsurgeon.specs import size_text


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a verification found.

    Attributes:
        path: the folder.
        manifest: whether there is a manifest that can be read; without one no byte of a tensor
            can be compared with anything.
        files: how many files were looked at.
        tensors: how many tensors they hold.
        nbytes: bytes that were read and digested.
        seconds: wall time.
        problems: everything that is wrong; empty for a sound checkpoint.
        unchecked: what could not be checked, and why.
        notes: what is odd about the folder, and yet harms nobody.
    """

    path: Path
    manifest: bool
    files: int
    tensors: int
    nbytes: int
    seconds: float
    problems: tuple[Problem, ...]
    unchecked: tuple[str, ...]
    notes: tuple[str, ...]


def report_text(report: Report) -> str:
    """A report for people. The problems are only counted: each one is a text by itself."""
    count = len(report.problems)
    sound = "sound" if report.manifest else "nothing wrong found"
    verdict = f"{count} problem{'s' * (count != 1)}" if count else sound
    speed = size_text(int(report.nbytes / max(report.seconds, 1e-9)))
    lines = [
        f"{report.path}: {verdict}",
        f"{report.files} files and {report.tensors} tensors checked, "
        f"{size_text(report.nbytes)} digested in {report.seconds:.2f} s ({speed}/s)",
        *(f"not checked: {what}" for what in report.unchecked),
        *(f"note: {what}" for what in report.notes),
    ]
    return "\n".join(map(printable, lines))


def report_json(report: Report) -> dict[str, Any]:
    """A report for programs; sizes are in bytes."""
    return {
        "path": str(report.path),
        "manifest": report.manifest,
        "files": report.files,
        "tensors": report.tensors,
        "bytes": report.nbytes,
        "seconds": report.seconds,
        "problems": [
            {"where": problem.where, "what": problem.what, "fix": problem.fix}
            for problem in report.problems
        ],
        "unchecked": list(report.unchecked),
        "notes": list(report.notes),
    }


class Findings:
    """Problems as they are found, each one once, in the order of finding."""

    def __init__(self) -> None:
        self._problems: dict[Problem, None] = {}
        self._unchecked: dict[str, None] = {}

    def problem(self, where: Path, what: str, fix: str = "") -> None:
        """Note what is wrong with a file."""
        self.add(Problem(where=str(where), what=what, fix=fix))

    def add(self, problem: Problem) -> None:
        """Note a problem."""
        self._problems[problem] = None

    def take(self, error: TensorSurgeonError) -> None:
        """Note all that an error carries."""
        self._problems.update(dict.fromkeys(error.problems))

    def not_checked(self, what: str) -> None:
        """Note what could not be checked, and why."""
        self._unchecked[what] = None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong."""
        return tuple(self._problems)

    @property
    def unchecked(self) -> tuple[str, ...]:
        """What could not be checked."""
        return tuple(self._unchecked)
