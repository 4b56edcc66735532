"""Files beside the weights: code and pickles stay behind unopened, templates are only bytes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tensorsurgeon.arch import without_code
from tensorsurgeon.checkpoint import open_checkpoint
from tests.cli.checkpoints import CARD, llama_config
from tests.cli.conftest import Refused, WriteRecipe
from tests.cli.processes import run_under

PICKLE = b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR."
"""Runs a command wherever it is loaded."""

CODE = ("configuration_llama.py", "modeling_llama.py", "TOKENIZER.PY", "vocab.py")
PICKLES = (
    "optimizer.pt",
    "pytorch_model.bin",
    "scheduler.pth",
    "tokenizer.pkl",
    "training_args.bin",
    "vocab.bin",
    "vocab.joblib",
    "vocab.npy",
    "vocab.pickle",
    "vocab.pkl",
    "vocab.pyc",
    "vocab.sh",
    "vocab.so",
)
TOKENIZER = {
    "chat_template.jinja": b"{{ cycler.__init__.__globals__.os.system('touch pwned') }}\x1b[2J\xff",
    "merges.txt": b"a b\r\n\x00",
    "tokenizer.json": b"\xef\xbb\xbfno JSON at all",
    "tokenizer.model": PICKLE,
    "tokenizer_config.json": json.dumps(
        {"chat_template": "{% for x in range(10**9) %}{% endfor %}\x1b[2J"}
    ).encode(),
    "vocab.txt": b"\x1b[2J",
}
OTHER = {
    "generation_config.json": b'{"do_sample": NaN}',
    "preprocessor_config.json": b"",
}


@pytest.fixture
def crowded(single: Path) -> Path:
    """A model with files of all kinds beside it."""
    for name in CODE:
        (single / name).write_text("import os; os.system('touch pwned')")
    for name in PICKLES:
        (single / name).write_bytes(PICKLE)
    for name, content in (TOKENIZER | OTHER).items():
        (single / name).write_bytes(content)
    (single / "tokenizer.json.d").mkdir()
    (single / "assets.json").mkdir()
    return single


def test_files_beside_the_weights_are_told_apart_by_their_names(crowded: Path) -> None:
    found = open_checkpoint(crowded)
    assert found.tokenizer_files == tuple(sorted(TOKENIZER))
    assert found.other_files == tuple(sorted(OTHER))
    assert found.code_files == tuple(sorted(CODE))
    assert found.notes == ()


@pytest.mark.parametrize("words", ["inspect", "apply"])
def test_code_and_pickles_are_not_opened_and_templates_are_bytes(
    words: str, crowded: Path, recipe: WriteRecipe, tmp_path: Path
) -> None:
    path = recipe("models: {m: ./source}\nresult: m\noutput: {path: ./out}\n")
    strace = ("strace", "-f", "-s", "500", "-e", "trace=open,openat,openat2", "-o", "/dev/stdout")
    done = run_under(strace, words, crowded if words == "inspect" else path)
    assert done.returncode == 0, done.stderr
    assert str(crowded / "config.json") in done.stdout
    for name in (*CODE, *PICKLES):
        assert str(crowded / name) not in done.stdout
    assert not list(tmp_path.rglob("pwned"))
    assert not Path("pwned").exists()
    if words == "inspect":
        assert not [name for name in TOKENIZER if str(crowded / name) in done.stdout]
        return
    out = tmp_path / "out"
    assert {name: (out / name).read_bytes() for name in TOKENIZER | OTHER} == TOKENIZER | OTHER
    ours = {"config.json", "model.safetensors", "tensorsurgeon.json", *CARD}
    assert {file.name for file in out.iterdir()} - ours == set(TOKENIZER | OTHER)
    assert "\x1b" not in done.stderr


def test_pickles_in_place_of_weights_are_refused_and_named(crowded: Path, refused: Refused) -> None:
    (crowded / "model.safetensors").unlink()
    message = refused("inspect", crowded, code=5)
    assert "has no safetensors weights, only optimizer.pt, pytorch_model.bin, " in message


def test_pickle_under_the_name_of_weights_is_refused_as_no_header(
    crowded: Path, refused: Refused
) -> None:
    (crowded / "model.safetensors").write_bytes(PICKLE)
    message = refused("inspect", crowded, code=5)
    assert "does not fit the file of 32 bytes" in message


CONFIGS: dict[str, Any] = {
    "none": {},
    "at the top": {"auto_map": {"AutoModel": "modeling_llama.Llama"}},
    "of another repository": {"auto_map": {"AutoModel": "someone/else--modeling.Llama"}},
    "no mapping": {"auto_map": ["x"], "custom_pipelines": None},
    "nested": {"text_config": {"auto_map": {"AutoConfig": "x.Y"}, "hidden_size": 8}},
    "in a list": {"experts": [{"auto_map": 1, "kept": [1, [2, {"auto_map": 3}]]}]},
    "pipelines": {"custom_pipelines": {"evil": {"impl": "evil.Pipeline"}}},
    "text": {"description": "auto_map", "labels": ["auto_map"]},
}


@pytest.mark.parametrize("extra", CONFIGS.values(), ids=CONFIGS.keys())
def test_config_without_code_keeps_all_else_and_the_original(extra: dict[str, Any]) -> None:
    config = llama_config() | extra
    before = json.dumps(config)
    found = without_code(config)
    assert '"auto_map": ' not in json.dumps(found)
    assert '"custom_pipelines": ' not in json.dumps(found)
    assert json.dumps(config) == before
    assert {key: found[key] for key in llama_config()} == llama_config()
    assert without_code(found) == found
    if extra == CONFIGS["in a list"]:
        assert found["experts"] == [{"kept": [1, [2, {}]]}]
    if extra == CONFIGS["text"]:
        assert found == config
