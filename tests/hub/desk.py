"""A desk from which checkpoints are pushed: the command line here, or as a process of its own."""

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import http_backoff

from tensorsurgeon.cli import main
from tensorsurgeon.hub import requests
from tests.cli.checkpoints import file_bytes, llama_config, llama_tensors, write_checkpoint
from tests.hub.log import Exchange
from tests.hub.loopback import CANARY, LoopbackHub

WRITING, BUSY, DAMAGED = 7, 8, 9

REPO = "org/out"

ROOT = Path(__file__).parents[2]

MODULE = (sys.executable, "-m", "tests.hub.launch")

MANIFEST = "tensorsurgeon.json"

CARD = "---\nlicense: mit\n---\n# A model\n"

INITIAL = {".gitattributes"}
"""What a repository holds as it is made."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Desk:
    """A folder to work in, and a Hub that knows nothing yet.

    Attributes:
        folder: where models and outputs are.
        hub: the Hub.
        call: runs `tensorsurgeon ARGUMENTS` in this process, which is quick; what it raises but
            SystemExit is the test's failure, as it would be a traceback.
    """

    folder: Path
    hub: LoopbackHub
    call: Callable[..., Done]

    def model(self, name: str = "model", *, shards: int = 3, seed: int = 0) -> Path:
        """A checkpoint with shards of 80 to 150 kB, a tokenizer and a card."""
        folder = self.folder / name
        tensors = llama_tensors(3, hidden=64, vocab=512, seed=seed)
        write_checkpoint(folder, tensors, llama_config(3, hidden=64, vocab=512), shards=shards)
        (folder / "tokenizer.json").write_text(f'{{"of": {seed}}}')
        (folder / "README.md").write_text(CARD)
        return folder

    def start(
        self, *arguments: str | Path, wrapper: tuple[str, ...] = (), **environment: str
    ) -> "subprocess.Popen[str]":
        """The command line as a process."""
        return subprocess.Popen(
            [*wrapper, *MODULE, *map(str, arguments)],
            env=self.hub.environment(PYTHONPATH=str(ROOT), **environment),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *arguments: str | Path, wrapper: tuple[str, ...] = (), **environment: str
    ) -> Done:
        """The same, to its end."""
        return ended(self.start(*arguments, wrapper=wrapper, **environment))

    def refused(self, *arguments: str | Path, code: int = WRITING) -> str:
        """The message of a command that fails, in this process."""
        done = self.call(*arguments)
        assert (done.code, done.out) == (code, ""), done.err
        return done.err

    def pushed(self, folder: Path, *options: str, repo: str = REPO) -> Done:
        """A folder is pushed, in this process, and all of it is there."""
        done = self.call("push", folder, repo, *options)
        assert done.code == 0, done.err
        self.assert_holds(folder, *repo.split("@"))
        return done

    def assert_holds(self, folder: Path, repo: str = REPO, branch: str = "main") -> None:
        """The branch has the folder's files and, of weights, no others."""
        there, here = self.hub.files(repo, branch), files_of(folder)
        assert {name: there.get(name) for name in here} == here
        weights = {name for name in there if ".safetensors" in name}
        assert weights <= here.keys()

    def puts(self) -> list[Exchange]:
        """The requests by which large files came."""
        return self.hub.log.select(method="PUT")

    def uploaded(self) -> int:
        """Bytes of large files that came."""
        return sum(exchange.received for exchange in self.puts())

    def commits(self) -> list[Exchange]:
        """The requests by which a commit was asked for."""
        return self.hub.log.select(method="POST", target="/commit/")

    def titles(self, repo: str = REPO, branch: str = "main") -> list[str]:
        """The titles of a branch's commits, newest first."""
        there = self.hub.repo(repo)
        return [commit.title for commit in there.history(there.resolve(branch))]

    def head(self, repo: str = REPO, branch: str = "main") -> str:
        """What a branch is at."""
        return self.hub.repo(repo).resolve(branch).oid


def ended(process: "subprocess.Popen[str]", timeout: float = 120) -> Done:
    """How a process ended, which says nothing that it must not."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
        process.communicate()
    return sound(Done(process.returncode, out, err))


def sound(done: Done) -> Done:
    """The same, if it says no secret and nothing of the program's inside."""
    for word in (CANARY, "Signature=", "Traceback", "huggingface_hub"):
        assert word not in done.out + done.err
    return done


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of every file in a folder and below, by path, that is not hidden."""
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        name.as_posix(): path.read_bytes()
        for name, path in found.items()
        if not any(part.startswith(".") for part in name.parts)
    }


def large(files: Mapping[str, bytes]) -> int:
    """Bytes of those files that go to the Hub's store of large files."""
    return sum(len(data) for name, data in files.items() if name.endswith(".safetensors"))


def wait_for(condition: Callable[[], object], seconds: float = 30, *, every: float = 0.005) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(every)


def two_models(desk: Desk) -> None:
    """Sources `a` and `b`."""
    for seed, name in enumerate("ab"):
        desk.model(name, seed=seed)


def write_recipe(
    desk: Desk,
    result: str = "{linear: {models: [a, b], weights: [0.3, 0.7]}}",
    *,
    output: str = "{path: ./out, max_shard_size: 80KB}",
    a: str = "./a",
    b: str = "./b",
) -> Path:
    """A recipe whose result has more than three shards."""
    models = f"{{a: {a}, b: {b}}}" if "b" in result.replace("block", "") else f"{{a: {a}}}"
    path = desk.folder / "recipe.yaml"
    path.write_text(f"models: {models}\nresult: {result}\noutput: {output}\n")
    return path


def made_by_apply(desk: Desk, name: str = "want", *, run: bool = True) -> dict[str, bytes]:
    """What a plain run makes of the recipe; of the manifest, what never changes."""
    if run:
        done = desk.call("apply", desk.folder / "recipe.yaml", "-o", name)
        assert done.code == 0, done.err
    return nameless(file_bytes(desk.folder / name))


def nameless(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same with a card that does not say under which name the model is loaded."""
    if card := files.get("README.md"):
        return files | {"README.md": re.sub(rb'(?m)^name = ".*$', b"name =", card)}
    return files


def pushed_files(desk: Desk, branch: str = "main", *, repo: str = REPO) -> dict[str, bytes]:
    """What a branch has beyond what it was made with, as `made_by_apply` has it."""
    found = {n: data for n, data in desk.hub.files(repo, branch).items() if n not in INITIAL}
    if manifest := found.get(MANIFEST):
        found[MANIFEST] = manifest[: manifest.rindex(b'"created": ')]
    return nameless(found)


@pytest.fixture
def desk(
    hub: LoopbackHub,
    client: HfApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Desk]:
    """A desk; at the end, the token is in no file, and went to no other host."""

    def call(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["tensorsurgeon", *map(str, arguments)])
        with pytest.raises(SystemExit) as exited:
            main()
        out, err = capsys.readouterr()
        return sound(Done(int(exited.value.code or 0), out, err))

    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setattr(requests, "PAUSE", 0.01)
    monkeypatch.setitem(http_backoff.__kwdefaults__, "base_wait_time", 0.01)
    monkeypatch.setitem(http_backoff.__kwdefaults__, "max_wait_time", 0.02)
    hub.registry.part_size = 100_000
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield Desk(tmp_path / "desk", hub, call)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert not any(exchange.token for exchange in hub.log.select(host="cdn"))
    for path in tmp_path.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and path.stat().st_size < 10_000_000:
                assert CANARY.encode() not in path.read_bytes(), path
