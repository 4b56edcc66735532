"""The command line of the trainer: light until it trains, and clear about what was mistyped."""

import json
import os
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import jsonschema
import pytest

from tests.conftest import ROOT, RunCli

HEAVY = {"torch", "transformers", "datasets", "pyarrow", "numpy", "accelerate", "tensorboard"}

LISTED = """
import atexit, sys
atexit.register(lambda: print("imported", *sys.modules, file=sys.stderr))
from tensorsurgeon.cli import main
main()
"""

ABSENT = """
import sys
from importlib.machinery import PathFinder

class Others(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {names} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Others
"""
"""A sitecustomize under which some packages are not installed."""


def run_in(folder: Path, *arguments: str | Path, absent: tuple[str, ...]) -> CompletedProcess[str]:
    """Runs `tensorsurgeon train ARGUMENTS` in an interpreter that lacks some packages."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(ABSENT.replace("{names}", repr(set(absent))))
    return subprocess.run(
        [sys.executable, "-m", "tensorsurgeon", "train", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(
        "model: ./model\nfolder: ./run\ndata: {train: ./tokens, sequence_length: 64}\n"
        "steps: 2\nbatch: {sequences: 2}\noptimizer: {learning_rate: 0.001}\n"
    )
    return path


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["-h"], 0),
        ([], 2),
        (["schema"], 0),
        (["run", "--help"], 0),
        (["prepare", "--help"], 0),
        (["check", "--help"], 0),
        (["report", "--help"], 0),
        (["--dryrun", "run.yaml"], 2),
        (["shcema"], 2),
        (["bad.yaml"], 3),
        (["bad.yaml", "--dry-run"], 3),
        (["none.yaml"], 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_nothing_heavy_is_imported_for_help_or_a_mistake(
    arguments: list[str], code: int, run_file: Path
) -> None:
    run_file.with_name("bad.yaml").write_text(run_file.read_text().replace("steps", "stesp"))
    done = subprocess.run(
        [sys.executable, "-c", LISTED, "train", *arguments],
        cwd=run_file.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    said, _, imported = done.stderr.rpartition("imported ")
    assert done.returncode == code, said
    assert "tensorsurgeon.trainer.commands" in imported.split()
    assert not HEAVY & {name.partition(".")[0] for name in imported.split()}


def test_schema_is_json_schema_and_says_what_each_setting_is(run_cli: RunCli) -> None:
    schema = json.loads(run_cli("train", "schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    described = [value for kind in schema["$defs"].values() for value in kind["properties"].items()]
    assert "description" in dict(described)["warm_up"]
    assert {"model", "data", "optimizer"} <= schema["properties"].keys()


def test_help_names_the_commands_and_every_option_of_a_run(run_cli: RunCli) -> None:
    general = run_cli("train", "--help").stdout
    commands = ("check", "prepare", "report", "run", "schema")
    assert all(f"\n  {name} " in general for name in commands)
    options = run_cli("train", "run", "--help").stdout
    for option in ("--dry-run", "--ranks", "--json", "--no-resume", "--overwrite", "--quiet"):
        assert option in options


@pytest.mark.parametrize("arguments", [["train"], []], ids=["train", "alone"])
def test_no_command_shows_the_help_as_it_is(arguments: list[str], run_cli: RunCli) -> None:
    done = run_cli(*arguments)
    assert done.returncode == 2
    assert "\n  train " in done.stderr or "\n  prepare " in done.stderr
    assert "\\n" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dryrun", "run.yaml"], "No such option '--dryrun'. Did you mean '--dry-run'?"),
        (["run.yaml", "--overwite"], "No such option '--overwite'. Did you mean '--overwrite'?"),
        (["repor", "folder"], "'repor' is no run file and no command: did you mean 'report'?"),
        (["perpare", "a", "b"], "'perpare' is no run file and no command: did you mean 'prepare'?"),
        (["shcema"], "'shcema' is no run file and no command: did you mean 'schema'?"),
        (["run"], "Missing argument 'RUN.yaml'"),
        (["run.yaml", "--json"], "--ranks and --json go with --dry-run"),
        (["run.yaml", "--dry-run", "--ranks", "0"], "0 is not in the range"),
        (["prepare", "--tokenzier"], "No such option '--tokenzier'. Did you mean '--tokenizer'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_mistyped_is_told_with_the_nearest(
    arguments: list[str], said: str, run_file: Path, run_cli: RunCli
) -> None:
    done = run_cli("train", *arguments, cwd=run_file.parent)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Try 'tensorsurgeon train" in done.stderr
    assert not done.stdout


def test_run_file_of_a_commands_name_is_found_by_its_path(run_file: Path, run_cli: RunCli) -> None:
    run_file.rename(run_file.with_name("schema"))
    done = run_cli("train", "./schema", cwd=run_file.parent)
    assert done.returncode == 5
    assert not done.stdout
    assert "model: there is no such folder" in done.stderr


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("none.yaml", "none.yaml: there is no such file"),
        (".", ".: is not a file"),
        ("typo.yaml", "typo.yaml:4:1: "),
        ("empty.yaml", "empty.yaml"),
    ],
)
def test_run_file_that_is_none_is_told_by_its_name(
    word: str, said: str, run_file: Path, run_cli: RunCli
) -> None:
    run_file.with_name("typo.yaml").write_text(run_file.read_text().replace("steps", "stesp"))
    run_file.with_name("empty.yaml").touch()
    before = sorted(run_file.parent.iterdir())
    done = run_cli("train", word, cwd=run_file.parent)
    assert done.returncode == 3
    assert said in done.stderr
    assert ("did you mean 'steps'?" in done.stderr) == (word == "typo.yaml")
    assert sorted(run_file.parent.iterdir()) == before


@pytest.mark.parametrize("package", ["torch", "transformers", "accelerate"])
@pytest.mark.parametrize("option", [(), ("--dry-run",)], ids=["train", "dry-run"])
def test_missing_package_is_told_with_the_extra_that_has_it(
    package: str, option: tuple[str, ...], run_file: Path, tmp_path: Path
) -> None:
    done = run_in(tmp_path / "site", run_file, *option, absent=(package,))
    assert done.returncode == 10
    assert done.stderr == (
        f"training needs {package}, which this Python does not have\n"
        "  fix: pip install 'tensorsurgeon[train]'\n"
    )
    assert not (tmp_path / "run").exists()


def test_tokens_are_not_made_without_transformers(random_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Some text.")
    arguments = ["prepare", str(tmp_path / "text.txt"), f"--tokenizer={random_llama}"]
    done = run_in(
        tmp_path / "site", *arguments, "-o", tmp_path / "tokens", absent=("torch", "transformers")
    )
    assert done.returncode == 10
    assert "\n  fix: pip install 'tensorsurgeon[train]'\n" in done.stderr
    assert not (tmp_path / "tokens").exists()


def test_report_needs_nothing_but_what_the_engine_needs(tmp_path: Path) -> None:
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.parent.mkdir()
    run = {
        "event": "run",
        "stage": "pretrain",
        "name": "grown",
        "parameters": 10,
        "trainable": 10,
        "layers": [{"sources": [["base", 0]], "new": False, "seam": False}],
        "steps": 1,
        "tokens_per_step": 4,
        "sequence_length": 4,
        "world_size": 1,
        "device": "processor",
    }
    metrics.write_text(json.dumps(run) + "\n")
    done = run_in(tmp_path / "site", "report", metrics.parent, absent=tuple(HEAVY - {"numpy"}))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{metrics.parent}/report.html\n"
    assert "grown" in (metrics.parent / "report.html").read_text()


def test_trainer_alone_is_the_same_command(run_file: Path) -> None:
    def run(*arguments: str) -> CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tensorsurgeon.trainer", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    assert run("--help").stdout.startswith("Usage: tensorsurgeon train ")
    missing = run(str(run_file))
    assert missing.returncode == 5
    assert f"{run_file.parent}/model: there is no such folder" in missing.stderr
