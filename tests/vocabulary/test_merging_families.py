"""Families whose vocabulary tensors are more than an embedding and a head, or lie elsewhere."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from tests.cli.checkpoints import read_tensors
from tests.vocabulary.checkpoints import (
    EMBEDDING,
    HEAD,
    Bench,
    config_of,
    linear,
    rows_of,
    three,
    vocab_of,
)
from tests.vocabulary.makers import END, FOREST, SEA, files_of, lay_down, word_piece

UNION = {"vocabulary": {"source": "union"}}


def test_text_model_inside_another_is_brought_to_the_vocabulary(bench: Bench) -> None:
    models = {name: three()[name] for name in ("sea", "both")}
    for name, model in models.items():
        folder = model.write(bench.folder / name)
        text = config_of(folder)
        config = {"model_type": "llava", "text_config": text, "image_token_index": 3}
        (folder / "config.json").write_text(json.dumps(config))
        inner = {f"language_model.{key}": value for key, value in model.tensors().items()}
        save_file(inner, folder / "model.safetensors", metadata={"format": "pt"})
    out = bench.made(linear("sea", "both"), {"vocabulary": {"source": "both"}}, models)
    config, tokens = config_of(out), vocab_of(out)
    rows = read_tensors(out)[f"language_model.{EMBEDDING}"]
    assert config["text_config"]["vocab_size"] == len(rows) == len(tokens)
    assert config["text_config"]["eos_token_id"] == tokens[END]
    third = Tokenizer.from_file(str(bench.folder / "sea/tokenizer.json")).id_to_token(3)
    assert config["image_token_index"] == tokens[third]


def test_bert_is_merged_with_its_head_and_its_bias(bench: Bench) -> None:
    texts = {"sea": SEA, "forest": FOREST}
    stored = {}
    for seed, (name, text) in enumerate(texts.items()):
        stored[name] = _bert(bench, name, word_piece(text), seed)
    out = bench.made(linear("sea", "forest"), UNION, {name: f"./{name}" for name in texts})
    tokens, made = vocab_of(out), read_tensors(out)
    ids = {name: vocab_of(bench.folder / name) for name in texts}
    for tensor in _BERT_ROWS:
        found = made[tensor]
        for token, number in tokens.items():
            owners = [name for name in texts if token in ids[name]]
            rows = [stored[name][tensor][ids[name][token]] for name in owners]
            np.testing.assert_allclose(found[number], np.mean(rows, axis=0), atol=3e-7)
    assert made["bert.embeddings.position_embeddings.weight"].shape == (8, 16)


_BERT_ROWS = (
    "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.weight",
    "cls.predictions.bias",
    "cls.predictions.decoder.bias",
)


def _bert(bench: Bench, name: str, tokenizer: Tokenizer, seed: int) -> Mapping[str, Any]:
    random, rows = np.random.default_rng(seed), tokenizer.get_vocab_size()
    shapes = {
        _BERT_ROWS[0]: (rows, 16),
        _BERT_ROWS[1]: (rows, 16),
        _BERT_ROWS[2]: (rows,),
        _BERT_ROWS[3]: (rows,),
        "bert.embeddings.position_embeddings.weight": (8, 16),
        "bert.embeddings.LayerNorm.weight": (16,),
        "bert.encoder.layer.0.output.dense.weight": (16, 32),
        "bert.encoder.layer.1.output.dense.weight": (16, 32),
    }
    tensors = {
        key: random.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()
    }
    folder = lay_down(bench.folder / name, files_of(tokenizer, tokenizer_class="BertTokenizer"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "model_type": "bert",
        "num_hidden_layers": 2,
        "vocab_size": rows,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


def test_final_logits_bias_follows_the_tokens_by_its_last_axis(bench: Bench) -> None:
    models = {name: three()[name] for name in ("sea", "both")}
    stored = {}
    for name, model in models.items():
        folder = model.write(bench.folder / name)
        bias = np.arange(model.rows, dtype=np.float32)[None]
        stored[name] = model.tensors() | {"final_logits_bias": bias}
        save_file(stored[name], folder / "model.safetensors", metadata={"format": "pt"})
    out = bench.made("sea", {"vocabulary": {"source": "both"}}, models)
    found = read_tensors(out)["final_logits_bias"]
    ids = {name: vocab_of(bench.folder / name) for name in models}
    wanted = [ids["sea"].get(token, number) for token, number in ids["both"].items()]
    assert found.shape == (1, len(ids["both"]))
    assert [found[0, number] for number in ids["both"].values()] == wanted


def test_stored_head_of_a_tied_model_stays_its_embedding(bench: Bench) -> None:
    models = three()
    twin = models["sea"].tensors()
    twin[HEAD] = twin[EMBEDDING]
    models["sea"].write(bench.folder / "sea")
    save_file(twin, bench.folder / "sea" / "model.safetensors", metadata={"format": "pt"})
    config = config_of(bench.folder / "sea") | {"tie_word_embeddings": True}
    (bench.folder / "sea" / "config.json").write_text(json.dumps(config))
    out = bench.made(
        "sea", {"vocabulary": {"source": "both"}}, {n: models[n] for n in ("sea", "both")}
    )
    assert rows_of(out, HEAD).tolist() == rows_of(out).tolist()
    assert config_of(out)["tie_word_embeddings"] is True
