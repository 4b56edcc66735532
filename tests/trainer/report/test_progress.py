"""Progress is a bar on a terminal, lines elsewhere, nothing when quiet, and never an end."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tensorsurgeon.trainer.progress import TrainingProgress, duration, thousands

PROGRAM = """
import sys, time
from tensorsurgeon.trainer.progress import TrainingProgress
with TrainingProgress(20_000, quiet={quiet}, every={every}) as progress:
    progress.update(step=5_000, held_out_loss=2.5)
    for step in range(5_001, 5_004):
        time.sleep(0.02)
        progress.update(step=step, loss=2.25, learning_rate=3e-4, tokens_per_second=51_234, mfu=.4)
    progress.say("a note [bold] of\\x1b[2J two\\nlines")
    print("data")
    {then}
print("over")
"""


def program(*, quiet: bool = False, every: float = 10.0, then: str = "") -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(quiet=quiet, every=every, then=then)]


def test_lines_hold_the_last_numbers_and_the_time_left() -> None:
    found = subprocess.run(program(every=0), capture_output=True, text=True, check=True)
    assert found.stdout == "data\nover\n"
    lines = found.stderr.splitlines()
    assert lines[0] == "step 5,000/20,000 (25%)  held-out 2.500"
    numbers = "loss 2.250  held-out 2.500 at 5,000  lr 3.00e-04  tokens/s 51.2k  MFU 40.0%"
    assert lines[3].startswith(f"step 5,003/20,000 (25%)  {numbers}  ")
    assert lines[3].endswith(" left")


def test_between_lines_there_are_seconds_but_the_last_is_always_shown() -> None:
    found = subprocess.run(program(every=60), capture_output=True, text=True, check=True)
    steps = [line.split()[1] for line in found.stderr.splitlines() if line.startswith("step")]
    assert steps == ["5,000/20,000", "5,003/20,000"]


def test_control_characters_of_a_note_are_shown() -> None:
    found = subprocess.run(program(), capture_output=True, text=True, check=True)
    assert "a note [bold] of\\x1b[2J two\nlines\n" in found.stderr


def test_note_comes_after_the_steps_before_it() -> None:
    found = subprocess.run(program(every=60), capture_output=True, text=True, check=True)
    begins = [line.split(maxsplit=2)[:2] for line in found.stderr.splitlines()]
    assert begins == [["step", "5,000/20,000"], ["step", "5,003/20,000"], ["a", "note"], ["lines"]]


def test_quiet_is_quiet() -> None:
    found = subprocess.run(program(quiet=True), capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("data\nover\n", "")


def on_a_terminal(arguments: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout, and what was written to a terminal as stderr."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=theirs, env=env) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:  # the other end is closed
            pass
        assert process.stdout is not None
        output = process.stdout.read().decode()
    os.close(ours)
    return process.returncode, output, shown.decode()


def test_bar_on_a_terminal_shows_steps_and_numbers_and_leaves_stdout_alone() -> None:
    code, output, shown = on_a_terminal(program(then="time.sleep(0.4)"))
    assert code == 0
    assert output == "data\nover\n"
    assert "5,003/20,000" in shown
    assert "loss 2.250" in shown
    assert "a note [bold] of\\x1b[2J two" in shown
    assert "left" in shown
    assert shown.rstrip().splitlines()[-1].endswith("MFU 40.0%")


def test_training_goes_on_where_nobody_reads_its_progress(tmp_path: Path) -> None:
    there, gone = os.pipe()
    os.close(there)
    then = "progress.update(step=6_000); progress.say('x')"
    arguments = program(every=0, then=then)
    found = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=gone, text=True, check=False)
    os.close(gone)
    assert found.stdout == "data\nover\n"
    assert found.returncode == 0


def test_run_of_no_steps_and_of_its_last_has_nothing_left(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with TrainingProgress(0) as progress:
        progress.update(step=0, loss=1.0)
    with TrainingProgress(2, every=0) as progress:
        progress.update(step=1)
        progress.update(step=2, loss=1.0)
    lines = capfd.readouterr().err.splitlines()
    assert lines == ["step 0/0 (0%)  loss 1.000", "step 1/2 (50%)", "step 2/2 (100%)  loss 1.000"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1:00"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (10931, "3:02:11"),
        (172_800, "2 d 0 h"),
    ],
)
def test_durations_are_told_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(5.0, "5"), (999.7, "1k"), (51_234, "51.2k")])
def test_thousands_have_three_digits(value: float, text: str) -> None:
    assert thousands(value) == text
