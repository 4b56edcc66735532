"""The commands as a shell meets them: help, streams, exit codes, colours, completion."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tensorsurgeon
from tests.cli.checkpoints import sparse_llama, tiny_llama
from tests.cli.conftest import Command, WriteRecipe
from tests.cli.processes import ENGINE, run_on_terminal
from tests.conftest import RunCli

MERGE = """\
models: {a: ./a, b: ./b}
result: {linear: {models: [a, b]}}
output: {path: ./out}
"""


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_command_and_every_exit_code(flag: str, run_cli: RunCli) -> None:
    done = run_cli(flag)
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("apply", "plan", "inspect", "schema", "Exit codes: 0 done, 2 usage, 3 recipe"):
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


OPTIONS = {
    "apply": ["RECIPE", "-o", "-s", "--threads", "--max-memory", "--overwrite", "-q"],
    "plan": ["RECIPE", "-o", "-s", "--threads", "--max-memory", "--json"],
    "inspect": ["CHECKPOINT", "--json"],
    "schema": [],
}


@pytest.mark.parametrize(("name", "words"), OPTIONS.items(), ids=OPTIONS)
def test_help_of_a_command_names_its_options(name: str, words: list[str], command: Command) -> None:
    done = command(name, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: tensorsurgeon {name} ")
    assert [word for word in words if word not in done.out] == []


def test_version_is_the_package_s(command: Command) -> None:
    assert tensorsurgeon.__version__ in command("--version").out


def test_console_script_and_module_are_one(run_cli: RunCli) -> None:
    script = Path(sys.executable).with_name("tensorsurgeon")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout == run_cli("--help").stdout


@pytest.mark.usefixtures("models")
def test_apply_reports_on_stderr_and_leaves_stdout_to_data(
    recipe: WriteRecipe, run_cli: RunCli
) -> None:
    done = run_cli("apply", recipe(MERGE))
    assert done.returncode == 0
    assert done.stdout == ""
    for word in ("layer map: 2 layers", "a[0-1] + b[0-1]", "wrote ", "21 computed", "peak memory"):
        assert word in done.stderr


@pytest.mark.usefixtures("models")
def test_quiet_apply_says_nothing(recipe: WriteRecipe, run_cli: RunCli) -> None:
    done = run_cli("apply", recipe(MERGE), "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.usefixtures("models")
def test_quiet_apply_still_says_what_went_wrong(recipe: WriteRecipe, run_cli: RunCli) -> None:
    done = run_cli("apply", recipe(MERGE.replace("linear", "liner")), "--quiet")
    assert done.returncode == 3
    assert "did you mean 'linear'?" in done.stderr


def test_recipe_s_paths_are_relative_to_it_and_the_user_s_to_where_they_are(
    tmp_path: Path, recipe: WriteRecipe, run_cli: RunCli
) -> None:
    tiny_llama(tmp_path / "models" / "a")
    here = tmp_path / "somewhere" / "else"
    tiny_llama(here / "b", 3)
    path = recipe("models: {a: ./models/a}\nresult: a\noutput: {path: models/out}\n")
    beside = Path("..", "..", path.name)
    assert run_cli("apply", beside, "-q", cwd=here).returncode == 0
    assert (tmp_path / "models" / "out" / "config.json").exists()
    done = run_cli("apply", beside, "-q", "-o", "out", "-s", "a=b", cwd=here)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((here / "out" / "config.json").read_text())["num_hidden_layers"] == 3


def test_home_of_a_path_is_the_user_s(tmp_path: Path, recipe: WriteRecipe, run_cli: RunCli) -> None:
    tiny_llama(tmp_path / "home" / "a")
    path = recipe("models: {a: ~/a}\nresult: a\noutput: {path: ~/out}\n")
    assert run_cli("apply", path, "-q", env={"HOME": str(tmp_path / "home")}).returncode == 0
    assert (tmp_path / "home" / "out" / "config.json").exists()


def test_errors_are_coloured_on_a_terminal_unless_no_color_is_set(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    assert run_on_terminal("plan", missing).startswith("\x1b[31m")
    for value in ("1", "yes"):
        shown = run_on_terminal("plan", missing, env={"NO_COLOR": value})
        assert shown == f"{missing}: there is no such file\r\n"


def test_progress_on_a_terminal_shows_bytes_speed_and_time_left(
    tmp_path: Path, recipe: WriteRecipe
) -> None:
    sparse_llama(tmp_path / "a", 30_000_000)
    path = recipe("""\
        models: {a: ./a, half: {linear: {models: [a, a], weights: [1, -0.5], normalize: false}}}
        result: {slerp: {models: [a, half], t: 0.5}}
        output: {path: ./out}
        """)
    shown = run_on_terminal("apply", path, env={"COLUMNS": "120"})
    for pattern in ("━", r"\d/[\d.]+ [MG]B", r"\d [MG]B/s", r"0:00:0\d"):
        assert re.search(pattern, shown)
    plain = run_on_terminal("apply", path, "--overwrite", env={"COLUMNS": "120", "NO_COLOR": "1"})
    assert "\x1b[3" not in plain


@pytest.mark.usefixtures("models")
def test_quiet_apply_says_nothing_on_a_terminal_either(recipe: WriteRecipe) -> None:
    assert run_on_terminal("apply", recipe(MERGE), "-q") == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_given(shell: str, run_cli: RunCli) -> None:
    done = run_cli(env={"_TENSORSURGEON_COMPLETE": f"{shell}_source"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "_tensorsurgeon_completion" in done.stdout


def test_bash_completes_commands_and_options() -> None:
    folder = Path(sys.executable).parent
    script = """
        eval "$(_TENSORSURGEON_COMPLETE=bash_source tensorsurgeon)"
        complete -p tensorsurgeon
        completed() {
          COMPREPLY=() COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
          _tensorsurgeon_completion tensorsurgeon
          echo "${COMPREPLY[@]}"
        }
        completed tensorsurgeon in
        completed tensorsurgeon apply --max
        """
    done = subprocess.run(
        ["bash", "-c", script],
        env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    registered, commands, options = done.stdout.splitlines()
    assert registered.endswith("-F _tensorsurgeon_completion tensorsurgeon")
    assert (commands, options) == ("inspect", "--max-memory")


def test_reader_that_goes_away_ends_the_command_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*ENGINE, "schema"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_output_that_nothing_takes_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*ENGINE, "schema"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 7
    assert done.stderr == "stdout: cannot be written: No space left on device\n"


@pytest.mark.usefixtures("models")
def test_closed_streams_are_no_reason_to_fail(recipe: WriteRecipe) -> None:
    script = '"$@" <&- >&- 2>&-'
    for command in ("plan", "apply"):
        closed = ["bash", "-c", script, "bash", *ENGINE, command, str(recipe(MERGE))]
        assert subprocess.run(closed, check=False).returncode == 0


@pytest.mark.parametrize("words", [(), ("train",)])
def test_no_arguments_show_the_help_as_it_is(words: tuple[str, ...], run_cli: RunCli) -> None:
    done = run_cli(*words)
    assert done.returncode == 2
    assert "\nCommands:\n" in done.stderr
