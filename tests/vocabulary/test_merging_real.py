"""SmolLM2 with its tokens in another order: brought back row by row, bit for bit and in little."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tensorsurgeon import api
from tests.cli.checkpoints import Tensors, read_tensors, write_checkpoint
from tests.real.test_footprint import peak_of_apply
from tests.vocabulary.checkpoints import EMBEDDING, config_of

MEAN = "{linear: {models: [a, b]}}"


@pytest.fixture(scope="module")
def shuffled(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model whose token t has id ids[t]; every other tensor is the same."""
    folder = tmp_path_factory.mktemp("real")
    tensors: Tensors = dict(read_tensors(smollm2))
    embedding = tensors[EMBEDDING]
    ids = np.random.default_rng(0).permutation(len(embedding))
    moved = np.empty_like(embedding)
    moved[ids] = embedding
    config = config_of(smollm2) | {"eos_token_id": int(ids[config_of(smollm2)["eos_token_id"]])}
    write_checkpoint(folder / "b", tensors | {EMBEDDING: moved}, config)
    tokenizer = config_of(smollm2, "tokenizer.json")
    vocab = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {token: int(ids[number]) for token, number in vocab.items()}
    for added in tokenizer["added_tokens"]:
        added["id"] = int(ids[added["id"]])
    tokenizer["added_tokens"].sort(key=lambda added: added["id"])
    (folder / "b/tokenizer.json").write_text(json.dumps(tokenizer))
    settings = config_of(smollm2, "tokenizer_config.json")
    settings.pop("added_tokens_decoder", None)
    (folder / "b/tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def recipe(folder: Path, smollm2: Path, result: str) -> Path:
    path = folder / "recipe.yaml"
    models = f"{{a: {smollm2}, b: ./b}}"
    output = "{path: ./out, vocabulary: {source: a}}"
    path.write_text(f"models: {models}\nresult: {result}\noutput: {output}\n")
    return path


@pytest.mark.parametrize("result", ["b", MEAN], ids=["alone", "merged"])
def test_rows_come_back_bit_for_bit(result: str, shuffled: Path, smollm2: Path) -> None:
    made = api.apply(api.plan(recipe(shuffled, smollm2, result)), overwrite=True).path
    assert made is not None
    found, wanted = read_tensors(made)[EMBEDDING], read_tensors(smollm2)[EMBEDDING]
    assert found.view(np.uint16).tobytes() == wanted.view(np.uint16).tobytes()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (made / name).read_bytes() == (smollm2 / name).read_bytes()
    assert config_of(made)["eos_token_id"] == config_of(smollm2)["eos_token_id"]
    shutil.rmtree(made)


def test_run_stays_within_its_forecast(shuffled: Path, smollm2: Path) -> None:
    path = recipe(shuffled, smollm2, MEAN)
    plan = api.plan(path)
    for threads in (1, 2):
        peak = peak_of_apply(path, "--threads", str(threads), "--overwrite")
        assert peak <= api.memory_for(plan, threads) < 200_000_000
    shutil.rmtree(shuffled / "out")
