"""The folder that is written: an ordinary checkpoint, as transformers would have saved it."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors

from tests.cli.checkpoints import (
    CARD,
    file_bytes,
    llama_config,
    llama_tensors,
    read_config,
    read_index,
    read_tensors,
    tiny_llama,
    write_checkpoint,
)
from tests.cli.conftest import Command, WriteRecipe

COPY = "models: {a: ./a}\nresult: a\n"


@pytest.fixture
def umask() -> Iterator[None]:
    """An unusual umask: the group may write, others may nothing."""
    before = os.umask(0o007)
    yield
    os.umask(before)


@pytest.mark.usefixtures("models", "umask")
def test_files_have_the_permissions_of_any_new_file(
    tmp_path: Path, recipe: WriteRecipe, command: Command
) -> None:
    (tmp_path / "a" / "tokenizer.json").write_text("{}")
    (tmp_path / "a" / "tokenizer.json").chmod(0o400)
    assert command("apply", recipe(COPY), "-o", tmp_path / "new" / "out").code == 0
    out = tmp_path / "new" / "out"
    assert [stat.filemode(path.stat().st_mode) for path in (out.parent, out)] == ["drwxrwx---"] * 2
    modes = {path.name: stat.filemode(path.stat().st_mode) for path in out.iterdir()}
    assert modes == dict.fromkeys(
        ("config.json", "model.safetensors", "tensorsurgeon.json", "tokenizer.json", *CARD),
        "-rw-rw----",
    )


@pytest.mark.usefixtures("models")
def test_shards_are_marked_as_pytorch_s(
    tmp_path: Path, recipe: WriteRecipe, command: Command
) -> None:
    path = recipe(COPY + "output: {path: ./out, max_shard_size: 2kB}\n")
    assert command("apply", path).code == 0
    for shard in (tmp_path / "out").glob("*.safetensors"):
        with safetensors.safe_open(shard, "np") as file:
            assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("size", [256, 1000, 1500, 3151, 3152])
def test_shards_hold_at_most_what_they_may_and_the_index_names_them(
    size: int, models: Path, recipe: WriteRecipe, command: Command
) -> None:
    path = recipe(COPY + f"output: {{path: ./out, max_shard_size: {size}}}\n")
    assert command("apply", path).code == 0
    out = models / "out"
    shards = sorted(entry.name for entry in out.glob("*.safetensors"))
    total = len(shards)
    if size == 3152:  # all of the model
        made = {*CARD, "config.json", "model.safetensors", "tensorsurgeon.json"}
        assert file_bytes(out).keys() == made
        return
    assert total >= 3152 / size
    assert shards == [f"model-{n:05d}-of-{total:05d}.safetensors" for n in range(1, total + 1)]
    weight_map = read_index(out)
    for shard in shards:
        with safetensors.safe_open(out / shard, "np") as file:
            names = set(file.keys())
        tensors = {name: tensor for name, tensor in llama_tensors().items() if name in names}
        assert sum(tensor.nbytes for tensor in tensors.values()) <= size
        assert names == {name for name, there in weight_map.items() if there == shard}
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 3152, "total_parameters": 1576}


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_sharding_changes_no_tensor(
    shards: int, tmp_path: Path, recipe: WriteRecipe, command: Command
) -> None:
    tiny_llama(tmp_path / "a", shards=shards)
    path = recipe(COPY + "output: {path: ./out, max_shard_size: 700}\n")
    assert command("apply", path).code == 0
    again = recipe(COPY + "output: {path: ./again}\n")
    assert command("apply", again, "-s", f"a={tmp_path / 'out'}").code == 0
    for folder in ("out", "again"):
        written = read_tensors(tmp_path / folder)
        assert written.keys() == llama_tensors().keys()
        for name, tensor in llama_tensors().items():
            assert written[name].tobytes() == tensor.tobytes()


BESIDE = {
    "generation_config.json": "other",
    "preprocessor_config.json": "other",
    "tokenizer.json": "tokenizer",
    "tokenizer_config.json": "tokenizer",
    "special_tokens_map.json": "tokenizer",
    "added_tokens.json": "tokenizer",
    "chat_template.jinja": "tokenizer",
    "tokenizer.model": "tokenizer",
    "merges.txt": "tokenizer",
    "vocab.json": "tokenizer",
    "vocab.txt": "tokenizer",
    "modeling_evil.py": "",
    "vocab.py": "",
    "vocab.pkl": "",
    "vocab.bin": "",
    "pytorch_model.bin": "",
    "pytorch_model.bin.index.json": "",
    "optimizer.pt": "",
    "training_args.bin": "",
    "trainer_state.json": "",
    "adapter_config.json": "",
    "tensorsurgeon.json": "",
    "README.md": "",
    ".gitattributes": "",
}
"""Files that lie beside weights, and with which model they go: the first, the tokenizer's, none."""


@pytest.fixture
def with_files(models: Path) -> Path:
    """The two models, each with one of these files of its own, and a folder."""
    for model in "ab":
        for name in BESIDE:
            (models / model / name).write_text(f"{model}'s {name}")
        (models / model / "original").mkdir()
    return models


@pytest.mark.parametrize(
    ("tokenizer", "donor"),
    [("", "a"), (", tokenizer: a", "a"), (", tokenizer: b", "b"), (", tokenizer: both", "a")],
)
def test_tokenizer_goes_along_with_the_first_model_or_the_one_named(
    tokenizer: str, donor: str, with_files: Path, recipe: WriteRecipe, command: Command
) -> None:
    path = recipe(f"""\
        models: {{a: ./a, b: ./b, both: {{linear: {{models: [a, b]}}}}}}
        result: both
        output: {{path: ./out{tokenizer}}}
        """)
    assert command("apply", path).code == 0
    written = file_bytes(with_files / "out")
    for name in ("config.json", "model.safetensors", "tensorsurgeon.json", *CARD):
        del written[name]
    donors = {"other": "a", "tokenizer": donor}
    assert written == {
        name: f"{donors[kind]}'s {name}".encode() for name, kind in BESIDE.items() if kind
    }


def test_tokenizer_may_come_from_a_model_that_is_used_for_nothing_else(
    with_files: Path, recipe: WriteRecipe, command: Command
) -> None:
    path = recipe("models: {a: ./a, b: ./b}\nresult: a\noutput: {path: ./out, tokenizer: b}\n")
    assert command("apply", path).code == 0
    assert file_bytes(with_files / "out")["vocab.txt"] == b"b's vocab.txt"


def test_stack_takes_its_files_from_its_first_model(
    with_files: Path, recipe: WriteRecipe, command: Command
) -> None:
    path = recipe("""\
        models: {a: ./a, b: ./b}
        result: {stack: [{model: b, layers: [1, 2]}, {model: a}]}
        output: {path: ./out}
        """)
    assert command("apply", path).code == 0
    assert file_bytes(with_files / "out")["generation_config.json"] == b"b's generation_config.json"


def test_source_is_never_written_to(
    with_files: Path, recipe: WriteRecipe, command: Command
) -> None:
    before = file_bytes_of(with_files / "a")
    path = recipe("models: {a: ./a}\nresult: a\noutput: {path: ./out, dtype: float32}\n")
    assert command("apply", path).code == 0
    assert file_bytes_of(with_files / "a") == before


def file_bytes_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every file in a folder."""
    files = (path for path in folder.iterdir() if path.is_file())
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize(
    ("output", "expected"), [("", "bfloat16"), (", dtype: float16", "float16")]
)
def test_config_names_the_dtype_that_is_written(
    key: str,
    output: str,
    expected: str,
    tmp_path: Path,
    recipe: WriteRecipe,
    command: Command,
) -> None:
    config = llama_config()
    del config["dtype"]
    write_checkpoint(tmp_path / "a", llama_tensors(), config | {key: "float32"})
    assert command("apply", recipe(COPY + f"output: {{path: ./out{output}}}\n")).code == 0
    written = read_config(tmp_path / "out")
    assert written == config | {key: expected}


def test_config_names_the_dtype_of_most_parameters(
    tmp_path: Path, recipe: WriteRecipe, command: Command
) -> None:
    norms = {f"model.layers.{layer}.q_norm.weight": np.ones(8, np.float32) for layer in range(2)}
    positions = {"model.positions": np.arange(10_000)}
    write_checkpoint(tmp_path / "a", llama_tensors(dtype="F16") | norms | positions)
    assert command("apply", recipe(COPY + "output: {path: ./out}\n")).code == 0
    assert read_config(tmp_path / "out")["dtype"] == "float16"


def test_config_keeps_what_it_does_not_know(
    tmp_path: Path, recipe: WriteRecipe, command: Command
) -> None:
    config = llama_config() | {"ünïcode": "\u2028 \U0001f600", "nested": {"list": [1, 2.5, None]}}
    write_checkpoint(tmp_path / "a", llama_tensors(), config)
    assert command("apply", recipe(COPY + "output: {path: ./out}\n")).code == 0
    assert read_config(tmp_path / "out") == config
    assert (tmp_path / "out" / "config.json").read_bytes().endswith(b"}\n")
