"""Files that are no recipe at all, and recipes whose sources are not there."""

import os
from pathlib import Path

import pytest

from tests.cli.conftest import Refused, WriteRecipe
from tests.conftest import RunCli

RECIPE, CHECKPOINT, PLAN = 3, 5, 6
"""Exit codes: the recipe, a source, the plan."""

ALIAS_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
"""Ten levels, each ten times the one before: 10^10 values if somebody expands them."""

FILES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", ": is empty\n  fix: a recipe has at least 'models' and 'result'"),
    "a comment": ("# nothing yet\n", ": is empty\n  fix: a recipe has at least"),
    "a list": ("- a\n- b\n", ":1:1: holds a list, not a mapping\n  fix: a recipe has at least"),
    "a word": ("hello\n", ":1:1: holds text, not a mapping\n  fix: a recipe has at least"),
    "binary": (bytes(range(256)), ": is not a text file: byte 128 is not UTF-8"),
    "UTF-16": ("models: {}".encode("utf-16"), ": is not a text file: byte 0 is not UTF-8"),
    "control characters": (b"models: \x00\n", ": not YAML: unacceptable character #x0000"),
    "a tab": ("models:\n\ta: ./a\n", ":2:1: not YAML: while scanning for the next token"),
    "cut short": ("models: {a: ./a\nresult: a\n", ":2:7: not YAML: while parsing a flow mapping"),
    "2,000 brackets": ("[" * 2000, ":1:65: nested deeper than 64 levels"),
    "2,000 closed brackets": ("[" * 2000 + "]" * 2000, ":1:65: nested deeper than 64 levels"),
    "2,000 braces": ("{a: " * 2000, ":1:257: nested deeper than 64 levels"),
    "an alias bomb": (ALIAS_BOMB, "grows to more than 50000 values or 64 levels when its aliases"),
    "an alias of itself": ("models: &m {a: *m}\n", "grows to more than 50000 values or 64 levels"),
    "an alias of nothing": ("models: *m\n", ":1:9: not YAML: found undefined alias 'm'"),
    "a key twice": (
        "models: {a: ./a, a: ./b}\nresult: a\n",
        ":1:18: key 'a' is here twice, first in line 1",
    ),
    "two documents": (
        "models: {a: ./a}\nresult: a\n---\nresult: b\n",
        ":3:1: not YAML: expected a single document in the stream but found another document",
    ),
    "a key that is a list": ("? [a]\n: 1\n", ":1:3: a key must be plain text"),
    "a tag that would run code": (
        "models: {a: !!python/name:os.system ls}\nresult: a\n",
        ":1:13: the tag tag:yaml.org,2002:python/name:os.system is not known here",
    ),
    "a megabyte": ("#" * 1_000_001, ": is 1000001 bytes long, the limit is 1000000"),
}


@pytest.mark.parametrize(("content", "problem"), FILES.values(), ids=FILES.keys())
def test_file_that_is_no_recipe_is_refused_with_the_place_and_the_reason(
    content: str | bytes, problem: str, recipe: WriteRecipe, refused: Refused
) -> None:
    path = recipe(content)
    message = refused("apply", path, code=RECIPE)
    assert message.startswith(str(path))
    assert problem in message


def test_folder_and_pipe_in_place_of_a_recipe_are_refused(tmp_path: Path, refused: Refused) -> None:
    folder, pipe = tmp_path / "folder.yaml", tmp_path / "pipe.yaml"
    folder.mkdir()
    os.mkfifo(pipe)
    for path in (folder, pipe):
        assert refused("plan", path, code=RECIPE) == f"{path}: is not a file\n"


def test_missing_recipe_is_refused_with_the_nearest_name(
    recipe: WriteRecipe, refused: Refused
) -> None:
    path = recipe("models: {a: ./a}\nresult: a\n")
    message = refused("plan", path.with_name("recpie.yaml"), code=RECIPE)
    assert "there is no such file\n  fix: did you mean 'recipe.yaml'?" in message


def test_file_name_that_is_too_long_is_refused(refused: Refused) -> None:
    assert "cannot be read: File name too long" in refused("plan", "r" * 300, code=RECIPE)


SOURCES = {
    "a typo in a folder": (
        "./aa",
        "there is no folder {folder}/aa\n  fix: did you mean 'a'? known: a, b",
    ),
    "a file": ("./a/config.json", "is not a folder\n  fix: a source is the folder that holds"),
    "a NUL": ('"./a\\0b"', "'{folder}/a\\x00b' cannot be used: embedded null byte"),
    "a name that is too long": ("./" + "a" * 300, "cannot be used: File name too long"),
    "a home of nobody": ("~nobody-here/a", "there is no folder {folder}/~nobody-here/a"),
    "a folder that is none of a model": (".", "config.json: is not there\n  fix: a source is the"),
}


@pytest.mark.parametrize(("source", "problem"), SOURCES.values(), ids=SOURCES.keys())
def test_source_that_is_not_there_is_refused_with_what_to_do(
    source: str, problem: str, models: Path, recipe: WriteRecipe, refused: Refused
) -> None:
    path = recipe(f"models: {{m: {source}}}\nresult: m\noutput: {{path: ./out}}\n")
    assert problem.format(folder=models) in refused("apply", path, code=CHECKPOINT)


def test_all_missing_sources_are_named_at_once(
    models: Path, recipe: WriteRecipe, refused: Refused
) -> None:
    path = recipe("""\
        models: {a: ./a, c: ./c, d: ./d}
        result: {linear: {models: [a, c, d]}}
        """)
    message = refused("plan", path, code=CHECKPOINT)
    assert f"{path}:1:21: there is no folder {models}/c" in message
    assert f"{path}:1:29: there is no folder {models}/d" in message


OPTIONS = {
    "a budget of nothing": (("--max-memory", "1MB"), PLAN, "a budget of 1 MB is too small"),
    "a budget in words": (("--max-memory", "lots"), 2, "'lots' is not a size; write it as 512MB"),
    "a negative budget": (("--max-memory", "-1MB"), 2, "a size must be positive, not '-1MB'"),
    "no threads": (("--threads", "0"), 2, "0 is not in the range 1<=x<=256"),
    "threads in words": (("--threads", "two"), 2, "'two' is not a valid integer range"),
    "a source nobody uses": (("-s", "c=./a"), RECIPE, "there is no source 'c' to replace"),
    "a merge replaced as a source": (("-s", "m=./a"), RECIPE, "there is no source 'm' to replace"),
    "a source without a folder": (("-s", "a"), 2, "'a' is not NAME=DIR"),
    "an option with a typo": (("--ouput", "x"), 2, "No such option '--ouput'. (Did you mean"),
    "an output name too long": (("-o", "x" * 300), PLAN, "cannot be used: File name too long"),
}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("options", "code", "problem"), OPTIONS.values(), ids=OPTIONS.keys())
def test_option_that_makes_no_sense_is_refused(
    options: tuple[str, ...], code: int, problem: str, recipe: WriteRecipe, refused: Refused
) -> None:
    path = recipe("""\
        models: {a: ./a, m: {linear: {models: [a, a]}}}
        result: m
        output: {path: ./out}
        """)
    assert problem in refused("apply", path, *options, code=code)


def test_small_budget_is_refused_with_the_smallest_that_works(
    models: Path, recipe: WriteRecipe, refused: Refused, run_cli: RunCli
) -> None:
    path = recipe("models: {a: ./a}\nresult: a\noutput: {path: ./out}\n")
    message = refused("apply", path, "--max-memory", "1MB", code=PLAN)
    fix = message.partition("fix: ")[2].split()
    assert fix[2:] == ["or", "more"]
    assert run_cli("apply", path, *fix[:2]).returncode == 0


def test_mistyped_command_is_refused_with_the_nearest(refused: Refused) -> None:
    assert "there is no command 'aply': did you mean 'apply'?" in refused("aply", code=2)


def test_refusal_of_a_process_is_one_message_and_its_exit_code(
    models: Path, recipe: WriteRecipe, run_cli: RunCli
) -> None:
    path = recipe("models: {a: ./a}\nresult: aa\noutput: {path: ./out}\n")
    done = run_cli("apply", path)
    assert done.returncode == RECIPE
    assert done.stdout == ""
    assert done.stderr == f"{path}:2:9: there is no model 'aa'\n  fix: did you mean 'a'? known: a\n"
    assert sorted(entry.name for entry in models.iterdir()) == ["a", "b", "recipe.yaml"]
