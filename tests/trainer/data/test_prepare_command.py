"""The command `train prepare`: what it says, what it refuses, and what it waits for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tensorsurgeon.errors import PlanError
from tensorsurgeon.trainer.data.command import prepare as command
from tests.conftest import ROOT
from tests.trainer.data.tokens import texts_in, write_lines


def test_the_command_tells_what_it_made_on_stderr_alone(
    tmp_path: Path, byte_tokenizer: Path
) -> None:
    (tmp_path / "texts").mkdir()
    write_lines(tmp_path / "texts" / "a.jsonl", [*map(str, range(100)), ""])
    (tmp_path / "texts" / "b.png").touch()
    arguments = (
        *(tmp_path / "texts", "--tokenizer", byte_tokenizer, "-o", tmp_path / "made"),
        *("--held-out", "0.2", "--held-out-output", tmp_path / "held-out"),
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.data.launch", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "note: left out 1 file of '.png' found in folders"
    assert lines[1] == (
        f"note: left out 1 record: empty text, at {tmp_path / 'texts' / 'a.jsonl'}:101"
    )
    assert lines[2].startswith(f"{tmp_path / 'held-out'}: ")
    assert lines[3].startswith(f"{tmp_path / 'made'}: ")
    assert lines[4].endswith("tokens/s")


def test_the_command_replaces_token_shards_only_when_asked(
    tmp_path: Path, byte_tokenizer: Path
) -> None:
    path = write_lines(tmp_path / "a.jsonl", ["a"])
    arguments = [str(path), "--tokenizer", str(byte_tokenizer), "-q", "-o", str(tmp_path / "made")]
    first = CliRunner().invoke(command, arguments)
    assert (first.exit_code, first.output) == (0, "")
    write_lines(path, ["a", "b"])
    again = CliRunner().invoke(command, arguments)
    assert isinstance(again.exception, PlanError)
    assert texts_in(tmp_path / "made", byte_tokenizer) == ["a"]
    replaced = CliRunner().invoke(command, [*arguments, "--overwrite"])
    assert (replaced.exit_code, replaced.output) == (0, "")
    assert texts_in(tmp_path / "made", byte_tokenizer) == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to read"),
        (["x", "--held-out", "0.1"], "go together"),
        (["x", "--held-out", "1"], "0<x<1"),
        (["x", "--held-out", "0.1", "--held-out-output", "o"], "another folder"),
        (["x", "--split-name", "train"], "go with --dataset"),
        (["x", "--format", "alpaca", "--field", "a"], "--field does not go with"),
        (["x", "--shard-size", "huge"], "'huge' is not a size"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused_at_once(
    arguments: list[str], said: str
) -> None:
    done = CliRunner().invoke(command, [*arguments, "--tokenizer", "t", "-o", "o"])
    assert done.exit_code == 2
    assert said in done.output


def test_the_command_needs_nothing_heavy_to_show_its_help() -> None:
    script = (
        "import sys\nfrom tensorsurgeon.trainer.data.command import prepare\n"
        "heavy = {'numpy', 'torch', 'transformers', 'datasets', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_dataset_is_read_after_the_inputs(tmp_path: Path, byte_tokenizer: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"text": ["of the dataset"]}).save_to_disk(tmp_path / "dataset")
    path = write_lines(tmp_path / "a.jsonl", ["of the file"])
    arguments = [f"--dataset={tmp_path / 'dataset'}", f"--tokenizer={byte_tokenizer}", "-q"]
    made = CliRunner().invoke(command, [str(path), *arguments, f"-o{tmp_path / 'made'}"])
    assert made.exit_code == 0, made.output
    assert texts_in(tmp_path / "made", byte_tokenizer) == ["of the file", "of the dataset"]
    told = CliRunner().invoke(command, ["--help"]).output
    assert "read after every INPUT" in " ".join(told.split())


UNREACHABLE = """
import sys, time
time.sleep = lambda _: None
from tensorsurgeon.cli import main
main()
"""
"""The command line, without the waits of a library between its attempts."""


@pytest.mark.parametrize(
    ("variable", "value", "fix"),
    [
        ("HF_ENDPOINT", "http://127.0.0.1:9", "check the network"),
        ("HF_HUB_OFFLINE", "1", "unset HF_HUB_OFFLINE"),
    ],
)
def test_a_hub_that_cannot_be_reached_is_told_in_one_line_and_a_fix(
    variable: str, value: str, fix: str, tmp_path: Path, byte_tokenizer: Path
) -> None:
    arguments = ["--dataset=foo/bar", f"--tokenizer={byte_tokenizer}", f"-o{tmp_path / 'made'}"]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", UNREACHABLE, "train", "prepare", *arguments],
        cwd=ROOT,
        env=kept | {variable: value, "HF_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 10
    said, *rest = done.stderr.splitlines()
    assert said.startswith("dataset foo/bar train: cannot be read: Couldn't reach 'foo/bar' on")
    assert rest == [f"  fix: {fix}, or give the dataset's files as INPUT"]


TIMED = """
import sys, time
from pathlib import Path

began = time.monotonic()
from tensorsurgeon.trainer.data.prepare import prepare

here, tokenizer = map(Path, sys.argv[1:])
prepared = prepare([here / "a.jsonl"], tokenizer=tokenizer, output=here / "made")
print(prepared.seconds, time.monotonic() - began)
"""


def test_what_libraries_take_to_load_is_not_in_the_time(
    tmp_path: Path, byte_tokenizer: Path
) -> None:
    write_lines(tmp_path / "a.jsonl", ["a"])
    done = subprocess.run(
        [sys.executable, "-c", TIMED, tmp_path, byte_tokenizer],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    told, whole = map(float, done.stdout.split())
    assert 0 < told < whole / 4
