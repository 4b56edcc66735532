"""`tensorsurgeon verify` on the command line: streams and exit codes."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command, command

__all__ = ["command"]

DAMAGED = 9


def flip(folder: Path) -> None:
    """One bit of the last tensor's last byte."""
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_sound_checkpoint_ends_with_0(folder: Path, command: Command) -> None:
    done = command("verify", folder)
    assert done.code == 0, done.err
    assert str(folder) in done.out
    found = json.loads(command("verify", folder, "--json").out)
    assert found["problems"] == []


@pytest.mark.parametrize("options", [(), ("--json",), ("-q",), ("--json", "-q")])
def test_damage_ends_with_a_code_of_its_own_however_it_is_told(
    options: tuple[str, ...], folder: Path, command: Command
) -> None:
    flip(folder)
    done = command("verify", folder, *options)
    assert done.code == DAMAGED
    assert "model.safetensors" in done.err
    if "--json" in options:
        [problem] = json.loads(done.out)["problems"]
        assert problem["where"].endswith("model.safetensors")
        assert problem["what"] in done.err
    else:
        assert (done.out == "") == ("-q" in options)


def test_folder_that_is_not_there_is_another_error(tmp_path: Path, command: Command) -> None:
    done = command("verify", tmp_path / "no", "--json")
    assert done.code == 5
    assert done.out == ""
