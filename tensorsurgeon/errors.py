"""Every error a user can meet, and the exit code each ends the command with.

::

    TensorSurgeonError        1
    ├── RecipeError           3   what the recipe, or the run file of a training, says
    ├── ArchitectureError     4   what a model is, or two models are to each other
    ├── CheckpointError       5   what is read
    │   ├── HeaderError           a safetensors file
    │   ├── IndexFileError        model.safetensors.index.json
    │   ├── MissingTensorError    a tensor or shard that should be there
    │   ├── HubError              a repository of the Hub, or the way to it
    │   └── ManifestError         tensorsurgeon.json
    ├── PlanError             6   what cannot be done with this machine, budget or output
    ├── OutputError           7   what is written
    │   └── PushError             to a repository of the Hub
    ├── BusyError             8   another run is writing the same output
    ├── VerifyError           9   a checkpoint that is not what its manifest says
    └── TrainingError        10   a training that cannot begin, or cannot go on
        ├── DataError             what it learns from
        └── ResumeError           what it was to go on from

2 is left to the command line's own usage errors, 129 to SIGHUP, 130 to Ctrl-C, 143 to SIGTERM.
"""

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong: where, what, and how to mend it.

    Attributes:
        what: the fact, one line.
        where: a file, `file:line:column` or a tensor; may be empty.
        fix: what to do; may be empty.
    """

    what: str
    where: str = ""
    fix: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        mend = f"\n  fix: {printable(self.fix)}" if self.fix else ""
        return printable(place + self.what) + mend


class TensorSurgeonError(Exception):
    """The root of the tree; carries one or more problems, reported together."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str = "", *, where: str = "", fix: str = "") -> None:
        self.problems: tuple[Problem, ...] = (Problem(what=what, where=where, fix=fix),)
        super().__init__(what)

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> "TensorSurgeonError":
        """An error of this class that reports several problems at once."""
        error = cls()
        error.problems = tuple(problems)
        return error

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class RecipeError(TensorSurgeonError):
    """The recipe, or a run file, cannot be read, or says something that makes no sense."""

    exit_code = 3


class ArchitectureError(TensorSurgeonError):
    """A model's layers cannot be told, or two models do not fit each other."""

    exit_code = 4


class CheckpointError(TensorSurgeonError):
    """A source cannot be read, or is not what it says it is."""

    exit_code = 5


class HeaderError(CheckpointError):
    """A file breaks a rule of the safetensors format."""


class IndexFileError(CheckpointError):
    """The index of a sharded checkpoint is malformed or contradicts its shards."""


class MissingTensorError(CheckpointError):
    """A tensor or a shard that should be there is not."""


class HubError(CheckpointError):
    """A repository is not there or not open to this user, or the Hub does not answer as one."""


class ManifestError(CheckpointError):
    """tensorsurgeon.json is malformed, has changed, or is of an unknown version."""


class PlanError(TensorSurgeonError):
    """The work cannot be done as asked: budget, disk, paths, dtypes."""

    exit_code = 6


class OutputError(TensorSurgeonError):
    """Writing the result failed."""

    exit_code = 7


class PushError(OutputError):
    """A checkpoint cannot be put to the Hub; nothing of it is shown there."""


class BusyError(TensorSurgeonError):
    """Another run holds the lock of the same output."""

    exit_code = 8


class VerifyError(TensorSurgeonError):
    """A checkpoint is damaged or incomplete; carries everything that was found."""

    exit_code = 9


class TrainingError(TensorSurgeonError):
    """A training cannot begin on this machine, or cannot go on."""

    exit_code = 10


class DataError(TrainingError):
    """Texts or token shards cannot be read, are empty, or do not fit model or tokenizer."""


class ResumeError(TrainingError):
    """What an earlier run has left is of another training, or damaged."""


def printable(text: str) -> str:
    r"""Text that is safe on a terminal: control characters as `\x1b`, line ends as `\n`.

    Names in checkpoints are a stranger's, and must not move a cursor or forge a line.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def fix_for(error: OSError) -> str:
    """What a user can do about a file that cannot be opened; empty where that is unknown."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "raise the limit of open files (ulimit -n)"
    return ""


def shortened(text: str, limit: int = 80) -> str:
    """At most `limit` characters of `text`, with an ellipsis where it was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A fix that names the nearest of the `known` words, and then all of them (up to 20)."""
    from difflib import get_close_matches

    words = sorted(known)
    near = get_close_matches(word, words, n=1)
    guess = f"did you mean '{near[0]}'? " if near else ""
    listed = ", ".join(words[:20]) + (", …" if len(words) > 20 else "")
    return f"{guess}known: {listed}" if words else guess.strip()
