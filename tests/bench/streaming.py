"""Streaming against a bare download of the same ranges: over the loopback, and over a slower line.

Over the loopback, merging, serving and downloading share the processors, so that it shows what
streaming takes of them. Over the line, which is faster than the network of most machines, it
shows whether the network is kept busy. Both are whole processes with an empty cache.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

from tensorsurgeon.processors import default_threads
from tests.bench import measure, models
from tests.bench.jobs import OURS, ROOT, Recipe, Workspace
from tests.bench.results import JobResult
from tests.bench.shapes import BF16_BYTES, Shape
from tests.hub.loopback import foreign

DOWNLOAD = "bare download"

RATE = 250_000_000
"""Bytes per second of the line, all connections together: 2 Gbit/s."""

LATENCY = 0.02
"""Seconds before each answer that comes over the line."""

LINES = {
    "loopback": (0.0, 0.0),
    f"{RATE / 1e6:.0f} MB/s, {LATENCY * 1e3:.0f} ms": (RATE, LATENCY),
}

THREADS = default_threads() + 1
"""Of a merge that streams, by default; a download has as many connections.

While a thread combines what a SLERP has read, it asks for nothing: of three threads, all do so at
times, and five in a hundred of the line are lost.
"""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Merge:
    """What is streamed: the first half of the layers, so that it does not take too long.

    Attributes:
        title: what the tables call it.
        models: the checkpoints it reads, by name.
        merged: our expression for the result, given the number of layers.
    """

    title: str
    models: tuple[str, ...]
    merged: Callable[[int], Recipe]


def _layers(model: str, begin: int, end: int) -> dict[str, object]:
    return {"model": model, "layers": [begin, end]}


def _halves(half: int) -> list[Recipe]:
    return [{"stack": [_layers(name, 0, half)]} for name in ("a", "b")]


MERGES = (
    Merge(
        title="DUS",
        models=("a",),
        merged=lambda half: {
            "stack": [_layers("a", 0, half - half // 4), _layers("a", half // 4, half)]
        },
    ),
    Merge(
        title="linear",
        models=("a", "b"),
        merged=lambda half: {"linear": {"models": _halves(half), "weights": [0.3, 0.7]}},
    ),
    Merge(
        title="SLERP",
        models=("a", "b"),
        merged=lambda half: {"slerp": {"models": _halves(half), "t": 0.4}},
    ),
)


class Server:
    """The process that serves; see `tests.bench.serving`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.settings: dict[str, str] = json.loads(self._read())

    def set_line(self, line: tuple[float, float]) -> int:
        """Choose rate and latency; returns the bytes sent since it was last called."""
        assert self._process.stdin is not None
        print(*line, file=self._process.stdin, flush=True)
        return int(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def served(folder: Path, checkpoints: list[Path]) -> Iterator[Server]:
    """A Hub with these checkpoints, as long as it is needed."""
    command = [sys.executable, "-m", "tests.bench.serving", str(folder), *map(str, checkpoints)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Server(process)


@dataclass(frozen=True, kw_only=True)
class Streaming:
    """The settings of one run, and its steps."""

    folder: Path
    shape: Shape
    server: Server
    say: Say

    def compare(self, merge: Merge, line: str, *, runs: int) -> JobResult:
        """Both programs in turn, after one of each that is not counted where it is short."""
        ranges = list(self._ranges(merge))
        commands = {OURS: self._stream(merge), DOWNLOAD: self._download(ranges)}
        result = JobResult(
            title=merge.title,
            bytes_read=sum(count for *_, count in ranges),
            bytes_written=0,
            runs={program: [] for program in commands},
        )
        if LINES[line] == (0.0, 0.0):
            for program, command in commands.items():
                result.warm_up[program] = self._attempt(command, line, result.bytes_read)
        for _ in range(runs):
            for program, command in commands.items():
                run = self._attempt(command, line, result.bytes_read)
                result.runs[program].append(run)
                rate = result.bytes_read / run.wall / 1e6
                self.say(
                    f"stream {merge.title}, {line}, {program}: {run.wall:.2f} s, {rate:.0f} MB/s, "
                    f"CPU {run.cpu:.2f} s"
                )
        return result

    def _attempt(self, command: list[str], line: str, needed: int) -> measure.Measurement:
        out = self.folder / "out"
        for left in (out, self.folder / "hf_home"):
            shutil.rmtree(left, ignore_errors=True)
        os.sync()
        self.server.set_line(LINES[line])
        run = measure.run(
            command,
            log=self.folder / "stream.log",
            output=out,
            environment=_environment(self.server.settings),
        )
        sent = self.server.set_line(LINES[line])
        if not needed <= sent < 1.01 * needed:
            raise RuntimeError(f"{needed} bytes were needed, {sent} were sent: {' '.join(command)}")
        return run

    def _stream(self, merge: Merge) -> list[str]:
        recipe = self.folder / f"{merge.title}.yaml"
        content = {
            "models": {name: f"bench/{name}" for name in merge.models}
            | {"merged": merge.merged(self.shape.layers // 2)},
            "result": "merged",
            "output": {"path": "./out"},
        }
        recipe.write_text(json.dumps(content, indent=2) + "\n")
        arguments = ["apply", str(recipe), "--stream", "-q"]
        return [sys.executable, "-m", "tensorsurgeon", *arguments]

    def _download(self, ranges: list[tuple[str, str, int, int]]) -> list[str]:
        path = self.folder / "ranges.json"
        path.write_text(json.dumps(ranges))
        return [sys.executable, "-m", "tests.bench.download", str(THREADS), str(path)]

    def _ranges(self, merge: Merge) -> Iterator[tuple[str, str, int, int]]:
        """Every tensor that is read: repository, file, first byte, bytes; largest first."""
        read = []
        for shard in models.lay_out(self.shape):
            at = len(shard.header)
            for name, dims in shard.tensors.items():
                nbytes = prod(dims) * BF16_BYTES
                part = name.split(".")
                if part[1] != "layers" or int(part[2]) < self.shape.layers // 2:
                    read.append((nbytes, shard.name, at))
                at += nbytes
        for nbytes, file, at in sorted(read, key=lambda found: -found[0]):
            for model in merge.models:
                yield f"bench/{model}", file, at, nbytes


def measure_streaming(
    workspace: Workspace, folder: Path, *, runs: int, say: Say
) -> dict[str, list[JobResult]]:
    """All merges over each line, by the line's name.

    Args:
        workspace: has the models `a` and `b`.
        folder: where recipes, outputs and logs go.
        runs: rounds of each.
        say: told of every run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted({name for merge in MERGES for name in merge.models})
    with served(folder, [workspace.model(name) for name in names]) as server:
        streaming = Streaming(folder=folder, shape=workspace.shape, server=server, say=say)
        found = {
            line: [streaming.compare(merge, line, runs=runs) for merge in MERGES] for line in LINES
        }
    shutil.rmtree(folder)
    return found


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not foreign(name)}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return kept | dict(settings)
