"""File names that are not UTF-8: refused and shown in letters that are, or taken along."""

import os
from pathlib import Path

import pytest

from tests.cli.checkpoints import tiny_llama
from tests.cli.conftest import Command, WriteRecipe

BESIDE = (b"a\xff.json", b"tokenizer\xff.json", b"\xe9.jinja", b"m\xff.py", b"\xff.safetensors")


def check_commands(source: Path, recipe: Path, output: Path, command: Command) -> None:
    """Every command ends with a result or one message; what is made is sound."""
    for words in (["inspect", "--json"], ["inspect"], ["verify", "--json"], ["verify"]):
        assert command(*words, source).code in (0, 5, 9)
    arguments = (recipe, "-s", f"m={source}", "-o", output)
    planned = command("plan", *arguments)
    applied = command("apply", *arguments)
    assert applied.code == planned.code
    assert all(line.isprintable() for line in (planned.err + applied.err).splitlines())
    if applied.code:
        assert applied.code == 5
        assert "\\udc" in applied.err
        assert not list(output.parent.glob("*out*"))
    else:
        assert command("verify", "--json", output).code == 0
        assert command("verify", output).code == 0
    assert command("clean", output.parent).code == 0


@pytest.fixture
def plain(recipe: WriteRecipe) -> Path:
    return recipe("models: {m: ./source}\nresult: m\n")


@pytest.mark.parametrize("name", BESIDE, ids=ascii)
def test_file_beside_the_weights(
    name: bytes, single: Path, plain: Path, command: Command, tmp_path: Path
) -> None:
    (single / os.fsdecode(name)).write_bytes(b"{}")
    check_commands(single, plain, tmp_path / "out", command)


def test_weights(single: Path, plain: Path, command: Command, tmp_path: Path) -> None:
    (single / "model.safetensors").rename(single / os.fsdecode(b"m\xff.safetensors"))
    check_commands(single, plain, tmp_path / "out", command)


def test_source_and_output_folders(plain: Path, command: Command, tmp_path: Path) -> None:
    source = tiny_llama(tmp_path / os.fsdecode(b"source\xff"))
    check_commands(source, plain, tmp_path / os.fsdecode(b"out\xff"), command)
