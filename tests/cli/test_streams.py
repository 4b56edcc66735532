"""Streams that nobody reads, signals that are to be ignored, and what usage errors show."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.checkpoints import sparse_llama, tiny_llama
from tests.cli.conftest import Command, Refused, WriteRecipe
from tests.cli.processes import ENGINE, run_on_terminal
from tests.cli.test_terminal import IN_FILE_NAME

COPY = "models: {a: ./a}\nresult: a\noutput: {path: ./out}\n"


@contextmanager
def unread() -> Iterator[int]:
    """A pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


@contextmanager
def full() -> Iterator[int]:
    """A file on a full disk."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("stream", [unread, full])
def test_run_goes_on_where_nobody_reads_what_it_says(
    stream: type[Iterator[int]], recipe: WriteRecipe, tmp_path: Path, command: Command
) -> None:
    path = recipe(COPY)
    with stream() as stderr:
        done = subprocess.run([*ENGINE, "apply", str(path)], stderr=stderr, check=False)
    assert done.returncode == 0
    assert command("verify", tmp_path / "out").code == 0


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("stream", [unread, full])
def test_error_has_its_code_where_nobody_reads_the_message(
    stream: type[Iterator[int]], tmp_path: Path
) -> None:
    with stream() as stderr:
        for arguments, code in (["apply", tmp_path / "no.yaml"], 3), (["apply"], 2):
            done = subprocess.run([*ENGINE, *map(str, arguments)], stderr=stderr, check=False)
            assert done.returncode == code


@pytest.mark.parametrize("ignored", [True, False])
def test_run_goes_on_when_its_terminal_goes_if_it_was_started_so(
    ignored: bool, recipe: WriteRecipe, tmp_path: Path
) -> None:
    """As `nohup` does; else it ends with a code of its own."""
    sparse_llama(tmp_path / "a", 10**9)
    path = recipe(COPY)
    start = ["nohup"] if ignored else []
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*start, *ENGINE, "apply", str(path), "-q"], **quiet) as process:
        while not list(tmp_path.glob(".out.part/checkpoint/*.safetensors")):
            assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert not ignored or process.poll() is None
        process.send_signal(signal.SIGTERM)
    assert process.returncode == (143 if ignored else 129)


@pytest.mark.parametrize("command", ["verify", "clean", "inspect", "explain"])
def test_usage_errors_show_what_was_given_escaped(command: str, tmp_path: Path) -> None:
    """On a terminal: elsewhere the library that parses arguments takes escapes out by itself."""
    extra = [tmp_path, *[IN_FILE_NAME] * 3]
    shown = run_on_terminal(command, *extra, env={"NO_COLOR": "1"})
    assert all(line.isprintable() for line in shown.replace("\r\n", "\n").split("\n")), repr(shown)
    assert "Usage: tensorsurgeon" in shown
    assert "error: " in shown


@pytest.mark.parametrize("name", [b"\xff.json", b"tokenizer\xe4.json", b"\xff.safetensors"])
def test_file_whose_name_is_no_text_is_refused_before_the_start(
    name: bytes, recipe: WriteRecipe, refused: Refused, tmp_path: Path
) -> None:
    tiny_llama(tmp_path / "a")
    (tmp_path / "a" / os.fsdecode(name)).write_text("{}")
    message = refused("apply", recipe(COPY), code=5)
    assert "has a name that is not UTF-8" in message


def test_inspect_tells_what_is_odd(tmp_path: Path, command: Command) -> None:
    folder = tiny_llama(tmp_path / "a", shards=2)
    (folder / "stale.safetensors").write_bytes(b"")
    assert "not read: stale.safetensors" in command("inspect", folder).err
    assert "not read: stale.safetensors" in command("verify", folder).out
