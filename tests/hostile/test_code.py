"""Code goes along, and is named, only when it is asked for."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.checkpoints import llama_config, llama_tensors, write_checkpoint
from tests.cli.conftest import Command, Refused, WriteRecipe

AUTO_MAP = {"AutoModelForCausalLM": "modeling_own.Own", "AutoTokenizer": ["other/repo--tok.T"]}
NAMING = ("tokenizer_config.json", "preprocessor_config.json", "generation_config.json")


def beside(**more: Any) -> dict[str, Any]:
    return {"text": "auto_map is \u2028 a word", "list": [1, 2.5, None], **more}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A model with code of its own, named in four configs."""
    write_checkpoint(tmp_path / "m", llama_tensors(), llama_config() | {"auto_map": AUTO_MAP})
    for name in NAMING:
        (tmp_path / "m" / name).write_text(json.dumps(beside(auto_map=AUTO_MAP)))
    for name in ("modeling_own.py", "configuration_own.py"):
        (tmp_path / "m" / name).write_bytes(b"raise SystemExit  # \xff never run")
    return tmp_path / "m"


COPY = "models: {m: ./m}\nresult: m\noutput: {path: ./out}\n"


def test_neither_code_nor_its_names_go_along(
    own: Path, recipe: WriteRecipe, command: Command
) -> None:
    done = command("apply", recipe(COPY))
    assert done.code == 0, done.err
    out = own.parent / "out"
    assert not list(out.glob("*.py"))
    assert json.loads((out / "config.json").read_bytes()) == llama_config()
    for name in NAMING:
        assert json.loads((out / name).read_bytes()) == beside()
        assert f"{name}: the names of Python classes are dropped" in done.err
    assert command("verify", out).code == 0


def test_code_goes_along_as_it_is_when_asked_for(
    own: Path, recipe: WriteRecipe, command: Command
) -> None:
    done = command("apply", recipe(COPY), "--copy-code")
    assert done.code == 0, done.err
    out = own.parent / "out"
    for name in (*NAMING, "modeling_own.py", "configuration_own.py"):
        assert (out / name).read_bytes() == (own / name).read_bytes()
    assert json.loads((out / "config.json").read_bytes())["auto_map"] == AUTO_MAP
    assert "dropped" not in done.err
    assert command("verify", out).code == 0


def test_work_begun_without_code_is_not_gone_on_with(
    own: Path, recipe: WriteRecipe, command: Command
) -> None:
    """The same tensors, and yet another result: only a name in a tokenizer's config differs."""
    (own / "config.json").write_text(json.dumps(llama_config()))
    for name in (*NAMING[1:], "modeling_own.py", "configuration_own.py"):
        (own / name).unlink()
    path = recipe(COPY)
    assert command("apply", path).code == 0
    out = own.parent / "out"
    first = json.loads((out / "tensorsurgeon.json").read_bytes())
    assert command("apply", path, "--copy-code", "--overwrite").code == 0
    second = json.loads((out / "tensorsurgeon.json").read_bytes())
    assert first["tensors"] == second["tensors"]
    assert first["created"]["binding"] != second["created"]["binding"]


def test_code_of_the_tokenizers_model_goes_along_but_never_in_place_of_the_models_own(
    own: Path, recipe: WriteRecipe, command: Command
) -> None:
    other = own.parent / "t"
    write_checkpoint(other, llama_tensors(seed=3))
    (other / "modeling_own.py").write_text("other")
    (other / "tokenization_own.py").write_text("other")
    path = recipe("models: {m: ./m, t: ./t}\nresult: m\noutput: {path: ./out, tokenizer: t}\n")
    assert command("apply", path, "--copy-code").code == 0
    out = own.parent / "out"
    assert (out / "tokenization_own.py").read_text() == "other"
    assert (out / "modeling_own.py").read_bytes() == (own / "modeling_own.py").read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        '{"x": NaN, "auto_map": {"AutoTokenizer": ["a/b--c.D", null]}}',
        '{"auto_map": 1, "auto_map": 2}',
        '{"\\u0061uto_map": {"AutoTokenizer": ["a/b--c.D", null]}}',
        '\ufeff{"nested": [{"auto_map": 1}], "half": "\\ud800"}',
    ],
    ids=["NaN", "twice", "escaped", "half a character"],
)
def test_names_are_found_in_whatever_python_would_read(
    text: str, own: Path, recipe: WriteRecipe, command: Command
) -> None:
    (own / "tokenizer_config.json").write_text(text)
    assert command("apply", recipe(COPY)).code == 0
    written = (own.parent / "out" / "tokenizer_config.json").read_bytes()
    assert "auto_map" not in repr(json.loads(written.decode(errors="surrogatepass")))


@pytest.mark.parametrize("text", ["", "[1]", "null", "{", "auto_map"])
def test_what_is_no_object_goes_along_as_it_is(
    text: str, own: Path, recipe: WriteRecipe, command: Command
) -> None:
    (own / "tokenizer_config.json").write_text(text)
    assert command("apply", recipe(COPY)).code == 0
    assert (own.parent / "out" / "tokenizer_config.json").read_text() == text


@pytest.mark.parametrize(
    ("text", "why"),
    [("[" * 100_000, "nested too deeply"), ("{}" + " " * 5_000_000, "is larger than 5 MB")],
    ids=["deep", "large"],
)
def test_config_that_cannot_be_looked_through_is_refused(
    text: str, why: str, own: Path, recipe: WriteRecipe, refused: Refused
) -> None:
    (own / "tokenizer_config.json").write_text(text)
    message = refused("apply", recipe(COPY), code=5)
    assert f"{own / 'tokenizer_config.json'}: {why}" in message
