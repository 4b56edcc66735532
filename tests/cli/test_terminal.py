"""Names are a stranger's: none of them moves the cursor, forges a line or hides what is shown."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.cli.checkpoints import (
    entry,
    llama_config,
    llama_tensors,
    shard_bytes,
    tiny_llama,
    write_checkpoint,
)
from tests.cli.conftest import Command, Done, WriteRecipe

EVIL = "\x1b[2J\x1b]0;title\x07\r\x08\x00\x9b31m\u202e\u2028\nerror: forged"
"""Clears the screen, sets the title, goes back, turns red, turns around, and adds a line."""

SHOWN = r"\x1b[2J\x1b]0;title\x07\r\x08\x00\x9b31m\u202e\u2028\nerror: forged"

IN_YAML = json.dumps(EVIL)
"""JSON's escapes are YAML's too."""

IN_FILE_NAME = EVIL.replace("\x00", "")


def assert_harmless(done: Done) -> None:
    """No control character but line ends, and no line that a name made up."""
    shown = done.out + done.err
    assert all(line.isprintable() for line in shown.split("\n")), repr(shown)
    assert not any(line.startswith("error: forged") for line in shown.split("\n"))


def test_tensor_names_are_listed_escaped(tmp_path: Path, command: Command) -> None:
    folder = write_checkpoint(tmp_path / "a", llama_tensors() | {EVIL: np.zeros(1, np.float32)})
    done = command("inspect", folder)
    assert done.code == 0
    assert SHOWN in done.out
    assert_harmless(done)
    assert_harmless(command("inspect", folder, "--json"))


def test_tensor_names_are_escaped_in_errors(tmp_path: Path, command: Command) -> None:
    folder = tiny_llama(tmp_path / "a")
    for tensor in (entry("U8", [1], 1, 2), entry(EVIL, [1], 0, 1), {EVIL: EVIL}):
        (folder / "model.safetensors").write_bytes(shard_bytes({EVIL: tensor}, b"a"))
        done = command("inspect", folder)
        assert done.code == 5
        assert SHOWN in done.err
        assert_harmless(done)


def test_tensor_names_are_escaped_in_plans_and_summaries(
    models: Path, recipe: WriteRecipe, command: Command
) -> None:
    for seed, name in enumerate("ab"):
        integers = {f"model.layers.{layer}.{EVIL}": np.arange(2) + seed for layer in range(2)}
        write_checkpoint(models / name, llama_tensors(seed=seed) | integers)
    rule = json.dumps([{"match": f"*{EVIL}", "value": 0}, 0.5])
    for t, code in ((rule, 0), ("0.5", 6)):
        path = recipe(f"""\
            models: {{a: ./a, b: ./b}}
            result: {{slerp: {{models: [a, b], t: {t}}}}}
            output: {{path: ./out}}
            """)
        for name in ("plan", "apply"):
            done = command(name, path)
            assert done.code == code
            assert_harmless(done)


def test_file_names_are_escaped(tmp_path: Path, command: Command) -> None:
    folder = tiny_llama(tmp_path / IN_FILE_NAME)
    done = command("inspect", folder)
    assert done.code == 0
    assert_harmless(done)
    (folder / "model.safetensors").rename(folder / f"{IN_FILE_NAME}.safetensors")
    done = command("inspect", folder)
    assert done.code == 0
    assert r"\x1b[2J" in done.out
    assert_harmless(done)


def test_file_names_that_are_no_text_are_shown(
    tmp_path: Path, recipe: WriteRecipe, command: Command
) -> None:
    name = os.fsdecode(b"caf\xe9")
    folder = tiny_llama(tmp_path / name)
    path = recipe("models: {a: ./a}\nresult: a\n")
    for arguments in (
        ("inspect", folder),
        ("plan", path, "-s", f"a={folder}", "--json"),
        ("apply", path, "-s", f"a={folder}", "-o", tmp_path / f"{name}-out"),
        ("plan", path, "-s", f"a={folder}", "-o", tmp_path / f"{name}-out"),
    ):
        done = command(*arguments)
        assert done.code == 0, done.err
        assert_harmless(done)


@pytest.mark.parametrize("key", ["model_type", EVIL])
def test_config_is_escaped(key: str, models: Path, recipe: WriteRecipe, command: Command) -> None:
    write_checkpoint(models / "a", llama_tensors(), llama_config() | {key: EVIL})
    path = recipe("models: {a: ./a, b: ./b}\nresult: {linear: {models: [a, b]}}\n")
    for arguments in (("inspect", models / "a"), ("plan", path)):
        assert_harmless(command(*arguments))


RECIPES = {
    "a folder": "{models: {a: EVIL}, result: a}",
    "a model": "{models: {EVIL: ./a}, result: EVIL}",
    "an unknown model": "{models: {a: ./a}, result: EVIL}",
    "an unused model": "{models: {a: ./a, EVIL: ./b}, result: a}",
    "a model twice": "{models: {EVIL: ./a, EVIL: ./b}, result: a}",
    "an operator": "{models: {a: ./a}, result: {EVIL: {models: [a, a]}}}",
    "two operators": "{models: {a: ./a}, result: {EVIL: 1, a: 2}}",
    "a parameter": "{models: {a: ./a}, result: {linear: {models: [a, a], EVIL: 1}}}",
    "a value": "{models: {a: ./a}, result: {slerp: {models: [a, a], t: EVIL}}}",
    "a rule's key": "{models: {a: ./a}, result: {slerp: {models: [a, a], t: [{EVIL: 1}, 1]}}}",
    "a rule's glob": "{models: {a: ./a, b: ./b}, result: {slerp: {models: [a, b], "
    "t: [{match: EVIL, value: 1}, 1]}}}",
    "a dtype": "{models: {a: ./a}, result: a, output: {dtype: EVIL}}",
    "a size": "{models: {a: ./a}, result: a, output: {max_shard_size: EVIL}}",
    "a tokenizer": "{models: {a: ./a}, result: a, output: {tokenizer: EVIL}}",
    "an output": "{models: {a: ./a}, result: a, output: {path: EVIL}}",
    "a layer prefix": "{models: {a: {source: {path: ./a, layers: EVIL}}}, result: a}",
    "an alias": "{models: *x\x1b[2J}",
    "a tag": "{models: !x%1b%0a x}",
}


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("text", RECIPES.values(), ids=RECIPES.keys())
def test_recipe_is_escaped(text: str, recipe: WriteRecipe, command: Command) -> None:
    path = recipe(text.replace("EVIL", IN_YAML))
    for name in ("plan", "apply"):
        assert_harmless(command(name, path))


def test_recipe_name_is_escaped(tmp_path: Path, command: Command) -> None:
    path = tmp_path / f"{IN_FILE_NAME}.yaml"
    assert_harmless(command("plan", path))
    path.write_text("models: {a: ./a}\nresult: b\n")
    done = command("plan", path)
    assert done.code == 3
    assert_harmless(done)


def test_arguments_are_escaped(recipe: WriteRecipe, command: Command) -> None:
    path = recipe("models: {a: ./a}\nresult: a\n")
    for arguments in ((EVIL,), ("plan", path, "-s", EVIL), ("plan", path, "--max-memory", EVIL)):
        done = command(*arguments)
        assert done.code == 2
        assert_harmless(done)
