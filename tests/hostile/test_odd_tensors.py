"""Odd tensors that break no rule are copied bit for bit, and their names shown escaped."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.checkpoints import entry, llama_config, llama_tensors, shard_bytes, tiny_llama
from tests.cli.conftest import WriteRecipe
from tests.conftest import RunCli
from tests.hostile.test_header import read_by_library

EVIL = "\x1b[2J\x1b]0;title\x07\r\n\x9b31m\u202e\u2028error: forged"
"""Clears the screen, sets the title, begins a line, turns red, and turns around."""

NAMES = (
    "",
    " ",
    ".",
    "../../etc/passwd",
    "C:\\model",
    "{0}%s$HOME`id`",
    '"quoted"',
    "[bold red]markup[/]",
    "__metadata",
    "weight_map",
    "\x00",
    "\x7f",
    EVIL,
    "\ufeffmark",
    "é",
    "e\u0301",
    "🤗" * 50,
    "n" * 20_000,
)


def odd_shard() -> bytes:
    """A Llama, and before its tensors odd ones that put all of them at odd offsets, unpadded."""
    tensors: list[tuple[str, str, list[int], bytes]] = [
        ("scalar", "F64", [], bytes(range(8))),
        ("one", "U8", [1, 1], b"\xff"),
        ("empty", "F32", [0], b""),
        ("empty too", "BF16", [3, 0, 2], b""),
        ("half bytes", "F4", [2, 3], b"abc"),
        ("three quarters", "F6_E3M2", [4], b"def"),
        ("complex", "C64", [1], b"\x00\xff" * 4),
        ("scales", "F8_E8M0", [3], b"\x01\x02\x03"),
        ("rank 64", "U8", [1] * 64, b"r"),
        *((name, "I8", [1], bytes([index])) for index, name in enumerate(NAMES)),
    ]
    tensors += [
        (name, "BF16", list(tensor.shape), tensor.tobytes())
        for name, tensor in llama_tensors().items()
    ]
    header: dict[str, Any] = {}
    at = 0
    for name, dtype, shape, data in tensors:
        header[name] = entry(dtype, shape, at, at + len(data))
        at += len(data)
    text = json.dumps(header, ensure_ascii=False).encode()
    return shard_bytes(text + b" " * (len(text) % 2), b"".join(data for *_, data in tensors))


def assert_harmless(shown: str) -> None:
    """Nothing but what can be printed, and no line that a name has begun."""
    assert all(line.isprintable() for line in shown.split("\n")), ascii(shown)
    assert "\nerror: forged" not in shown


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(llama_config()))
    (folder / "model.safetensors").write_bytes(odd_shard())
    return folder


@pytest.mark.parametrize("size", ["1GB", "600B"])
def test_odd_tensors_are_copied_bit_for_bit_and_shown_escaped(
    size: str, source: Path, recipe: WriteRecipe, run_cli: RunCli
) -> None:
    assert (len((source / "model.safetensors").read_bytes()) - 2) % 2  # data at odd offsets
    path = recipe(
        f"models: {{m: ./source}}\nresult: m\noutput: {{path: ./out, max_shard_size: {size}}}\n"
    )
    for arguments in (
        ("inspect", source),
        ("inspect", source, "--json"),
        ("plan", path),
        ("plan", path, "--json"),
        ("apply", path),
    ):
        done = run_cli(*arguments)
        assert done.returncode == 0, done.stderr
        assert_harmless(done.stdout + done.stderr)
    expected = read_by_library(source / "model.safetensors")
    found = {}
    for shard in sorted((path.parent / "out").glob("*.safetensors")):
        for name, tensor in read_by_library(shard).items():
            assert name not in found
            found[name] = tensor
    assert found == expected
    if size != "1GB":
        index = json.loads((path.parent / "out" / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"]) == set(expected)


def test_output_of_odd_tensors_is_read_again(
    source: Path, recipe: WriteRecipe, run_cli: RunCli
) -> None:
    for text in ("{m: ./source}", "{m: ./out}"):
        path = recipe(f"models: {text}\nresult: m\n")
        out = path.parent / ("out" if "source" in text else "again")
        done = run_cli("apply", path, "-o", out)
        assert done.returncode == 0, done.stderr
    assert read_by_library(out / "model.safetensors") == read_by_library(
        source / "model.safetensors"
    )


def test_file_and_folder_names_are_shown_escaped(
    tmp_path: Path, recipe: WriteRecipe, run_cli: RunCli
) -> None:
    folder = tiny_llama(tmp_path / EVIL)
    (folder / f"{EVIL}.json").write_text("{}")
    (folder / f"tokenizer{EVIL}.json").write_text("{}")
    (folder / f"{EVIL}.safetensors").write_text("stale")
    path = recipe("models: {a: ./a}\nresult: a\n")
    source = f"a={folder}"
    for arguments in (
        ("inspect", folder),
        ("inspect", folder, "--json"),
        ("plan", path, "-s", source),
        ("plan", path, "-s", source, "--json"),
        ("apply", path, "-s", source, "-o", tmp_path / f"{EVIL}-out"),
    ):
        done = run_cli(*arguments)
        assert done.returncode == 0, done.stderr
        assert_harmless(done.stdout + done.stderr)
    copied = {file.name for file in (tmp_path / f"{EVIL}-out").iterdir()}
    assert {f"{EVIL}.json", f"tokenizer{EVIL}.json"} <= copied
    assert f"{EVIL}.safetensors" not in copied


@pytest.mark.parametrize("evil", [EVIL, "[red]x", "n" * 100_000])
def test_names_in_refusals_are_shown_escaped_and_cut(
    evil: str, source: Path, run_cli: RunCli
) -> None:
    path = source / "model.safetensors"
    for header in (
        {evil: entry("U8", [1], 1, 2)},
        {evil: entry(evil, [1], 0, 1)},
        {evil: {evil: evil}},
        {"__metadata__": {evil: 1}},
        json.dumps({evil: entry("U8", [1], 0, 1)}).join(["", ""]).encode() + evil.encode(),
    ):
        path.write_bytes(shard_bytes(header, b"a"))
        done = run_cli("inspect", source)
        assert done.returncode == 5
        assert_harmless(done.stdout + done.stderr)
        assert len(done.stderr) < 2000
