"""`report` makes the page of a run's folder, or says which folder is no run's."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tensorsurgeon.errors import DataError
from tensorsurgeon.trainer.report.command import report
from tests.trainer.report import synthetic
from tests.trainer.report.pages import parsed
from tests.trainer.report.synthetic import run_event, step_event, training


def run_of(folder: Path, name: str) -> Path:
    synthetic.write(folder / name / "metrics.jsonl", [run_event(9, name=name), step_event(1)])
    return folder / name


def made(*arguments: Path | str) -> str:
    """What the command printed."""
    found = CliRunner().invoke(report, [str(argument) for argument in arguments])
    if found.exception is not None:
        raise found.exception
    assert found.exit_code == 0
    return found.stdout


def test_report_goes_into_the_folder_of_the_run(tmp_path: Path) -> None:
    folder = run_of(tmp_path, "grown")
    assert made(folder) == f"{folder / 'report.html'}\n"
    assert parsed((folder / "report.html").read_text()).all("h1")[0].text == "grown"


def test_report_of_several_runs_goes_where_it_is_told(tmp_path: Path) -> None:
    output = tmp_path / "both.html"
    made(run_of(tmp_path, "a"), run_of(tmp_path, "b"), "-o", output, "--title", "A & B")
    root = parsed(output.read_text())
    assert root.all("h1")[0].text == "A & B"
    assert "b, training" in str([e.attributes.get("data-name") for e in root.all("path")])
    assert not (tmp_path / "a" / "report.html").exists()


def test_report_of_a_run_that_was_killed_while_writing_says_that_it_goes_on(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "metrics.jsonl", training(steps=20, depth=2, end=None))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "st')
    made(tmp_path)
    assert "Not finished: 20 of 20 steps" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("nowhere", "there is no such folder"),
        ("file", "is not a folder"),
        ("empty", "has no metrics.jsonl"),
        ("damaged", "metrics.jsonl:2: not JSON"),
        ("begun", "holds no run yet"),
    ],
)
def test_folder_of_no_run_is_told_with_a_fix(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    damaged = synthetic.write(tmp_path / "damaged" / "metrics.jsonl", [run_event(9)])
    damaged.write_text(damaged.read_text() + "{oops\n")
    synthetic.write(tmp_path / "begun" / "metrics.jsonl", [])
    good = run_of(tmp_path, "good")
    for arguments in ([tmp_path / name], [good, tmp_path / name]):
        with pytest.raises(DataError) as error:
            made(*arguments)
        assert str(tmp_path / name) in str(error.value)
        assert what in str(error.value)
        assert "\n  fix: " in str(error.value)
        assert error.value.exit_code == 10
    assert not (good / "report.html").exists()


def test_report_needs_neither_torch_nor_numpy(tmp_path: Path) -> None:
    folder = run_of(tmp_path, "grown")
    program = (
        "import sys; from tensorsurgeon.trainer.report.command import report\n"
        f"report([{str(folder)!r}], standalone_mode=False)\n"
        "assert not {'torch', 'numpy', 'transformers'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
