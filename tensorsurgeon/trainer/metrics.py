"""The metrics of a run: a file with one JSON object a line, and the same numbers for TensorBoard.

A line is appended with one write, so that whatever ends the process leaves at most the last line
torn: one that has no line end is none. Losses are in nats per token, or per pair, times in seconds,
memory in bytes; what is not finite is null, as JSON has no NaN.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorsurgeon.checkpoint.strict_json import StrictJSONError, parse_object
from tensorsurgeon.errors import OutputError, TrainingError
from tensorsurgeon.trainer.report.events import read_metrics, whole_lines

__all__ = ["Metrics", "read_metrics"]


class Metrics:
    """Appends to the metrics of a run; of all ranks, the first alone makes one.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, *, tensorboard: Path | None = None) -> None:
        """Open a file that may be there already, and drop its torn last line.

        Args:
            path: the file; its folder is made.
            tensorboard: where TensorBoard's files go, where they are wanted.

        Raises:
            OutputError: the file cannot be written.
            TrainingError: TensorBoard is wanted, but not installed.
        """
        self.path = path
        self._board = _Board(tensorboard) if tensorboard else None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _opened(path)
        except OSError as error:
            raise _failed(error, path) from None

    def write(self, event: Mapping[str, Any]) -> None:
        """Append a line; it is the system's when this returns, and survives the process.

        Raises:
            OutputError: it cannot be written; nothing of it is left.
        """
        plain = _plain(event)
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
        line = text.encode("utf-8", "replace") + b"\n"
        written = 0
        try:
            # A second write is needed, and fails, where the disk is full.
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise _failed(error, self.path) from None
        if self._board is not None:
            self._board.write(plain)

    def last_with_steps(self) -> dict[str, Any] | None:
        """The event of the last run that has taken a step; None where none has.

        It is empty where the event itself is damaged.

        Raises:
            OutputError: the file cannot be read any more.
        """
        run: dict[str, Any] = {}
        found = None
        try:
            lines = whole_lines(self.path.read_bytes())
        except OSError as error:
            raise _failed(error, self.path) from None
        for event in filter(None, map(_object, lines)):
            if event["event"] == "run":
                run = event
            elif event["event"] == "step":
                found = run
        return found

    def rewind(self, step: int | None) -> float:
        """Go back to where a run goes on: forget what came after a step, and what is torn.

        The file is replaced at once by one without those lines. A damaged line goes as well,
        since metrics are no reason not to resume.

        Args:
            step: the last step that counts; None forgets everything.

        Returns:
            Seconds that the run had taken by then.

        Raises:
            OutputError: the new file cannot be written.
        """
        seconds, kept = 0.0, []
        beside = self.path.with_name(self.path.name + ".new")
        try:
            for line in whole_lines(self.path.read_bytes()):
                event = _object(line)
                if event is None or step is None or _is_later(event, step):
                    continue
                kept.append(line + b"\n")
                if event["event"] == "step" and isinstance(event.get("seconds"), int | float):
                    seconds = max(seconds, event["seconds"])
            with beside.open("wb") as file:
                file.writelines(kept)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
            os.close(self._file)
            self._file = _opened(self.path)
        except OSError as error:
            raise _failed(error, self.path) from None
        if self._board is not None:
            self._board.forget_after(-1 if step is None else step)
        return seconds

    def close(self) -> None:
        """Close the file, and TensorBoard's."""
        os.close(self._file)
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _plain(value: Any) -> Any:
    """A value as JSON has it: numpy's and torch's scalars as Python's, null for NaN."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return [_plain(inner) for inner in value]


def _object(line: bytes) -> dict[str, Any] | None:
    """A line's event; None where it is damaged."""
    try:
        value = parse_object(line)
    except StrictJSONError:
        return None
    return value if isinstance(value.get("event"), str) else None


def _is_later(event: Mapping[str, Any], step: int) -> bool:
    """Whether an event is no part of a run that goes on after a step."""
    if event["event"] == "end":
        return True
    if event["event"] == "run":  # resumed there before, and no step of that was kept
        return isinstance(event.get("resumed_at"), int) and event["resumed_at"] >= step
    at = event.get("step", 0)
    return not isinstance(at, int) or at > step


def _opened(path: Path) -> int:
    """Open for appending, at the end of the last whole line."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        os.ftruncate(file, data.rfind(b"\n") + 1)
    return file


def _failed(error: OSError, path: Path) -> OutputError:
    fix = "free space on that disk, or choose another folder for the run"
    return OutputError(
        f"metrics cannot be written: {error.strerror or error}", where=str(path), fix=fix
    )


class _Board:
    """The same scalars for TensorBoard."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            what = "metrics for TensorBoard need the package tensorboard, which is not installed"
            raise TrainingError(what, fix="pip install tensorboard") from None
        self._make = SummaryWriter
        self._folder = folder
        self._purge: int | None = None
        self._writer: Any = None

    def forget_after(self, step: int) -> None:
        """Let nothing later than a step be shown from what was written before."""
        self.close()
        self._purge = step + 1

    def write(self, event: Mapping[str, Any]) -> None:
        if self._writer is None:
            self._writer = self._make(str(self._folder), purge_step=self._purge, flush_secs=10)
        for name, value in _scalars(event):
            if isinstance(value, int | float):
                self._writer.add_scalar(name, value, event.get("step", 0))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


_STEP_SCALARS = (
    *("loss", "learning_rate", "gradient_norm", "tokens", "tokens_per_second", "mfu", "memory"),
    *("margin", "accuracy"),
)


def _scalars(event: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What of an event TensorBoard draws, by the names it has there."""
    kind = event.get("event")
    if kind == "step":
        yield from ((f"train/{key}", event.get(key)) for key in _STEP_SCALARS)
    elif kind == "evaluation":
        yield from ((f"held_out/{key}", event.get(key)) for key in ("loss", "margin", "accuracy"))
    elif kind == "baseline":
        yield "baseline/loss", event.get("loss")
    elif kind == "layers":
        for key, name in (("gradient_norms", "gradient_norm"), ("moved", "moved")):
            for layer, value in enumerate(event.get(key, ())):
                yield f"{name}/layer_{layer:03}", value
    elif kind == "seams":
        for seam in event.get("seams", ()):
            for key in ("cosine", "norm_ratio"):
                yield f"seam_{key}/layer_{seam['layer']:03}", seam.get(key)
