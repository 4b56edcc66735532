"""A merge that is killed, failed or raced with in its own folder, and what must be there then."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

from tests.cli.checkpoints import file_bytes, llama_config, llama_tensors, write_checkpoint

ROOT = Path(__file__).parent.parent.parent
LAUNCH = (sys.executable, str(Path(__file__).with_name("launch.py")))

OUTPUT_CALLS = (
    "pwrite64,write,fdatasync,fsync,ftruncate,rename,renameat,renameat2,mkdir,unlink,rmdir,openat"
)
"""Every call by which a run changes a disk; of `openat`, those with O_CREAT."""

ALL_AT_ONCE = {"CRASH_BATCH_SECONDS": "0"}
"""Every tensor is flushed and journalled before the next."""

Files = dict[str, bytes] | None
"""What `file_bytes` tells of a folder; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """The `when`-th of the calls of this name that a process makes."""

    name: str
    when: int
    line: str

    def __str__(self) -> str:
        return f"{self.name} {self.when}: {self.line[:150]}"


@dataclass(frozen=True, kw_only=True)
class Job:
    """`tensorsurgeon apply` into a folder `out` that is alone in its own folder.

    Attributes:
        recipe: what to make.
        folder: where `out` goes; nothing else is in it.
        options: further arguments.
        settings: of `launch.py`, by the environment.
    """

    recipe: Path
    folder: Path
    options: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def work(self) -> Path:
        """The folder beside the output that only an unfinished run leaves."""
        return self.folder / ".out.part"

    @property
    def command(self) -> list[str]:
        return [*LAUNCH, "apply", str(self.recipe), "-o", str(self.out), *self.options]

    @property
    def env(self) -> dict[str, str]:
        quiet = {"PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}
        return {**os.environ, "PYTHONPATH": str(ROOT), **quiet, **dict(self.settings)}

    def start(self, *wrapper: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*wrapper, *self.command],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *wrapper: str) -> CompletedProcess[str]:
        with self.start(*wrapper) as process:
            out, err = process.communicate(timeout=120)
        return CompletedProcess(process.args, process.returncode, out, err)

    def trace(self, log: Path, *injected: str) -> list[Call]:
        """The calls of an uninterrupted run that touch the output, in their order."""
        done = self.run(*strace(injected, log=log))
        assert done.returncode == 0, done.stderr
        return list(_output_calls(log.read_text(), str(self.folder)))

    def left(self) -> list[str]:
        """Names of what is in the job's folder."""
        return sorted(path.name for path in self.folder.iterdir())

    def files(self) -> Files:
        return file_bytes(self.out) if self.out.exists() else None


def _output_calls(trace: str, folder: str) -> Iterator[Call]:
    counts: dict[str, int] = {}
    for line in trace.splitlines():
        found = re.match(r"\d+ +(\w+)\((.*)", line)
        if not found:
            continue
        name, rest = found.groups()
        counts[name] = counts.get(name, 0) + 1
        if folder in rest and (name != "openat" or "O_CREAT" in rest):
            yield Call(name=name, when=counts[name], line=rest.replace(folder, ""))


def strace(injected: Iterable[str] = (), log: Path | None = None) -> tuple[str, ...]:
    """A wrapper under which some system calls go otherwise, as strace's `inject` has it."""
    rules = [part for rule in injected for part in ("-e", f"inject={rule}")]
    names = OUTPUT_CALLS if log else ",".join(sorted({r.partition(":")[0] for r in injected}))
    to = str(log) if log else os.devnull
    # Other calls then cost nothing. But under it, strace 6.1 injects no signals.
    fast = () if any("signal=" in rule for rule in rules) else ("--seccomp-bpf",)
    return ("strace", "-f", "-y", *fast, "-o", to, "-e", f"trace={names}", *rules)


def tiny_recipe(folder: Path) -> Path:
    """A merge of two models of five tensors into two shards, with a tokenizer that goes along.

    One tensor has three pages and a bit, so that most of it is written past the cache.
    """
    vocab = 800
    for name, seed in (("a", 1), ("b", 2)):
        tensors = {
            tensor: values
            for tensor, values in llama_tensors(1, vocab=vocab, seed=seed).items()
            if any(word in tensor for word in ("norm", "embed", "down"))
        }
        write_checkpoint(folder / name, tensors, llama_config(1, vocab=vocab))
        (folder / name / "tokenizer.json").write_text('{"version": "1.0"}')
    path = folder / "recipe.yaml"
    path.write_text(
        "models: {a: ./a, b: ./b}\n"
        "result: {linear: {models: [a, b], weights: [0.3, 0.7]}}\n"
        "output: {path: ./unused, max_shard_size: 13kB}\n"
    )
    return path


def old_checkpoint(folder: Path) -> Path:
    """Another model, to be overwritten; with a file that the new one does not have."""
    tensors = {"model.norm.weight": llama_tensors(1, seed=9)["model.norm.weight"]}
    write_checkpoint(folder, tensors, llama_config(1))
    (folder / "notes.txt").write_text("of the old one\n")
    return folder
