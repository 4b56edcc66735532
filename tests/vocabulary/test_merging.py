"""Models with different tokenizers, merged: every row is what the tokens say, in every form."""

import json
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from tensorsurgeon import api
from tensorsurgeon.execute.provenance import binding_of
from tests.adapters.folders import adapter_config, factors, write_adapter
from tests.cli.checkpoints import read_tensors
from tests.methods.references import Float64
from tests.vocabulary.checkpoints import (
    EMBEDDING,
    HEAD,
    Bench,
    Tiny,
    config_of,
    linear,
    reindexed,
    rows_of,
    three,
    vocab_of,
)
from tests.vocabulary.makers import END, FOREST, PAD, PROBES, SEA, bpe, with_added

UNION = {"vocabulary": {"source": "union"}}
NAMES = ("sea", "forest", "both")

WEIGHTS = (0.5, 2.0, 1.0)
MEAN = {"linear": {"models": list(NAMES), "weights": list(WEIGHTS)}}
TUNED = {"task_arithmetic": {"base": "forest", "models": ["sea", "both"], "weights": [0.4, 0.7]}}
TIES = {"ties": {"base": "forest", "models": ["sea", "both"], "density": 1.0}}


def summed(parts: list[Float64]) -> Float64:
    total: Float64 = sum(
        (weight * part for weight, part in zip(WEIGHTS, parts, strict=True)), np.zeros(1)
    ) / sum(WEIGHTS)
    return total


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("source", ["union", "base", "both"])
def test_merged_rows_are_those_of_a_reference(source: str, tied: bool, bench: Bench) -> None:
    models = three(tied=tied)
    out = bench.made(MEAN, {"vocabulary": {"source": source}}, models)
    tokens, folders = vocab_of(out), bench.folders(models)
    own = {"base": "sea"}.get(source, source)
    every = {token for folder in folders for token in vocab_of(folder)}
    assert tokens.keys() == (every if source == "union" else vocab_of(bench.folder / own).keys())
    assert (HEAD in read_tensors(out)) is not tied
    for tensor in (EMBEDDING,) if tied else (EMBEDDING, HEAD):
        parts = [reindexed(folders, i, tokens, tensor=tensor) for i in range(3)]
        found = rows_of(out, tensor)
        assert found.shape == parts[0].shape
        np.testing.assert_allclose(found, summed(parts), rtol=0, atol=3e-7)


def test_token_that_a_model_lacks_gets_the_row_of_the_base(bench: Bench) -> None:
    models = three()
    out = bench.made(TUNED, UNION, models)
    tokens, folders = vocab_of(out), bench.folders(models)
    sea, forest, both = (reindexed(folders, i, tokens, base=1) for i in range(3))
    wanted = forest + 0.4 * (sea - forest) + 0.7 * (both - forest)
    np.testing.assert_allclose(rows_of(out), wanted, rtol=0, atol=1e-6)


def test_base_is_that_of_the_outermost_operator_that_has_one(bench: Bench) -> None:
    models = three() | {"inner": {"task_arithmetic": {"base": "sea", "models": ["both"]}}}
    result = {"task_arithmetic": {"base": "forest", "models": ["inner"]}}
    out = bench.made(
        {"linear": {"models": [result, "both"]}}, {"vocabulary": {"source": "base"}}, models
    )
    assert vocab_of(out) == vocab_of(bench.folder / "forest")


def test_base_without_one_is_the_first_model_and_a_model_that_is_called_so(bench: Bench) -> None:
    models = three()
    based = {"vocabulary": {"source": "base"}}
    out = bench.made(linear("both", "sea"), based, {n: models[n] for n in ("both", "sea")})
    assert vocab_of(out) == vocab_of(bench.folder / "both")
    named = {"base": models["forest"], "sea": models["sea"]}
    out = bench.made(linear("sea", "base"), based, named)
    assert vocab_of(out) == vocab_of(bench.folder / "base")


def test_rules_for_tokens_decide_their_rows(bench: Bench) -> None:
    models = three()
    rules: dict[str, Any] = {
        "<a>": {"source": "zero", "force": True},
        "ship": {"source": {"model": "forest", "token": "a"}, "force": True},
        PAD: {"source": {"model": "sea", "token": 3}},
        "r": {"source": "forest", "force": True},
    }
    out = bench.made(linear(*NAMES), {"vocabulary": {"source": "sea", "tokens": rules}}, models)
    tokens, found = vocab_of(out), rows_of(out)
    assert tokens.keys() == vocab_of(bench.folder / "sea").keys() | rules.keys()
    of = {name: (rows_of(bench.folder / name), vocab_of(bench.folder / name)) for name in models}

    def row(model: str, token: str | int) -> Float64:
        rows, ids = of[model]
        return rows[token if isinstance(token, int) else ids[token]]

    wanted = {
        "<a>": np.zeros(16),
        "ship": row("forest", "a"),
        PAD: (row("sea", 3) + row("forest", PAD) + row("both", PAD)) / 3,
        "r": row("forest", "r"),
    }
    for token, values in wanted.items():
        np.testing.assert_allclose(found[tokens[token]], values, rtol=0, atol=3e-7)
    assert not found[tokens["<a>"]].any()


def test_padding_makes_the_rows_a_multiple_with_zeros(bench: Bench) -> None:
    vocabulary = {"source": "union", "pad_to_multiple_of": 64}
    out = bench.made(linear(*NAMES), {"vocabulary": vocabulary}, three())
    count = len(vocab_of(out))
    for tensor in (EMBEDDING, HEAD):
        rows = rows_of(out, tensor)
        assert len(rows) == -(-count // 64) * 64 > count
        assert rows[:count].any(axis=1).all()
        assert not rows[count:].any()
    assert config_of(out)["vocab_size"] == len(rows)


def test_rows_beyond_the_tokens_are_not_kept(bench: Bench) -> None:
    model = three()["sea"]
    out = bench.made("sea", {"vocabulary": {"source": "sea"}}, {"sea": model})
    assert rows_of(out).tolist() == rows_of(bench.folder / "sea")[:-5].tolist()


def test_model_that_keeps_its_vocabulary_is_copied(bench: Bench) -> None:
    models = {"a": Tiny(tokenizer=bpe(SEA), seed=1), "b": Tiny(tokenizer=bpe(SEA), seed=2)}
    plan = bench.plan("a", {"vocabulary": {"source": "a"}}, {"a": models["a"]})
    assert all(tensor.is_copied for tensor in plan.tensors)
    assert plan.parsed > 0
    with_it = bench.made(linear("a", "b"), {"vocabulary": {"source": "union"}}, models)
    tensors = (with_it / "model.safetensors").read_bytes()
    without = bench.made(linear("a", "b"), {}, models)
    assert tensors == (without / "model.safetensors").read_bytes()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (without / name).read_bytes() == (bench.folder / "a" / name).read_bytes()


def test_model_gets_the_vocabulary_of_one_that_is_not_merged(bench: Bench) -> None:
    models = three()
    out = bench.made(
        "sea", {"vocabulary": {"source": "forest"}}, {n: models[n] for n in ("sea", "forest")}
    )
    tokens, folders = (
        vocab_of(bench.folder / "forest"),
        [bench.folder / n for n in ("sea", "forest")],
    )
    assert vocab_of(out) == tokens
    for tensor in (EMBEDDING, HEAD):
        assert (
            rows_of(out, tensor).tolist() == reindexed(folders, 0, tokens, tensor=tensor).tolist()
        )
    assert read_tensors(out)["model.norm.weight"].tolist() == [
        *read_tensors(bench.folder / "sea")["model.norm.weight"].tolist()
    ]


def test_tied_model_lends_its_embedding_where_a_head_needs_a_row(bench: Bench) -> None:
    models = three()
    models["forest"] = Tiny(tokenizer=models["forest"].tokenizer, seed=2, tied=True)
    out = bench.made(
        "sea", {"vocabulary": {"source": "forest"}}, {n: models[n] for n in ("sea", "forest")}
    )
    tokens, own = vocab_of(out), vocab_of(bench.folder / "sea")
    embedding, head = rows_of(out), rows_of(out, HEAD)
    lent = rows_of(bench.folder / "forest")
    only = [token for token in tokens if token not in own]
    assert only
    for token in only:
        assert embedding[tokens[token]].tolist() == lent[tokens[token]].tolist()
        assert head[tokens[token]].tolist() == lent[tokens[token]].tolist()


@pytest.mark.parametrize(
    "result",
    [MEAN, TIES, {"slerp": {"models": ["sea", "both"], "t": 0.3}}],
    ids=["linear", "ties", "slerp"],
)
def test_bytes_do_not_depend_on_threads_or_memory(result: Any, bench: Bench) -> None:
    models = three(dtype="BF16", hidden=2048)  # a tensor is several spans
    models = {name: model for name, model in models.items() if f'"{name}"' in json.dumps(result)}

    def tensors(**options: Any) -> bytes:
        return (bench.made(result, UNION, models, **options) / "model.safetensors").read_bytes()

    first = tensors(threads=1)
    assert tensors(threads=2) == first
    assert (
        tensors(threads=2, max_memory=api.memory_for(bench.plan(result, UNION, models), 1)) == first
    )


def test_methods_see_models_that_have_one_vocabulary(bench: Bench) -> None:
    models = three()
    out = bench.made(
        {"slerp": {"models": ["sea", "both"], "t": 0.3}},
        UNION,
        {name: models[name] for name in ("sea", "both")},
    )
    tokens, folders = vocab_of(out), [bench.folder / name for name in ("sea", "both")]
    one, other = (reindexed(folders, i, tokens) for i in range(2))
    cosine = (one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other)
    angle = np.arccos(cosine)
    wanted = (np.sin(0.7 * angle) * one + np.sin(0.3 * angle) * other) / np.sin(angle)
    np.testing.assert_allclose(rows_of(out), wanted, rtol=0, atol=1e-6)


def test_stacked_models_have_one_vocabulary(bench: Bench) -> None:
    models = {name: three()[name] for name in ("sea", "both")}
    result = {"stack": [{"model": "sea"}, {"model": "both"}]}
    out = bench.made(result, UNION, models)
    tokens, folders = vocab_of(out), bench.folders(models)
    assert rows_of(out).tolist() == reindexed(folders, 0, tokens).tolist()
    assert rows_of(out, HEAD).tolist() == reindexed(folders, 1, tokens, tensor=HEAD).tolist()


def test_adapter_is_applied_to_its_model_before_that_gets_another_vocabulary(bench: Bench) -> None:
    models = {name: three()[name] for name in ("sea", "both")}
    rows, module = models["sea"].rows, "model.embed_tokens"
    adapter = factors(module, (16, rows), embedding=True)
    write_adapter(bench.folder / "adapter", adapter, adapter_config(r=4, lora_alpha=4))
    adapted = {"lora": {"model": "sea", "adapter": "./adapter"}}
    alone = bench.made(adapted, {"path": "./alone"}, {"sea": models["sea"]})
    out = bench.made(linear("adapted", "both"), UNION, {**models, "adapted": adapted})
    tokens, folders = vocab_of(out), [alone, bench.folder / "both"]
    parts = [reindexed(folders, i, tokens) for i in range(2)]
    np.testing.assert_allclose(rows_of(out), (parts[0] + parts[1]) / 2, rtol=0, atol=1e-6)


def test_token_ids_in_configs_are_those_of_the_result(bench: Bench) -> None:
    last = Tiny(
        tokenizer=with_added(bpe(FOREST, special=[]), "<x>", END),
        seed=4,
        config={"pad_token_id": None, "forced_eos_token_id": [5]},
    )
    models = {"last": last, "sea": three()["sea"]}
    out = bench.made(linear("last", "sea"), {"vocabulary": {"source": "sea"}}, models)
    tokens = vocab_of(out)
    config = config_of(out)
    assert config["eos_token_id"] == tokens[END] == 0
    assert config_of(out, "generation_config.json") == {"eos_token_id": 0}
    moved = Tokenizer.from_file(str(bench.folder / "last/tokenizer.json")).id_to_token(5)
    assert config["forced_eos_token_id"] == [tokens[moved]]
    assert config["pad_token_id"] is None
    assert config["vocab_size"] == len(rows_of(out))


def test_config_that_names_no_size_gets_one(bench: Bench) -> None:
    models = {name: three()[name] for name in ("sea", "both")}
    models["sea"].write(bench.folder / "sea")
    config = config_of(bench.folder / "sea")
    del config["vocab_size"]
    (bench.folder / "sea/config.json").write_text(json.dumps(config))
    out = bench.made(linear("sea", "both"), UNION, models)
    assert config_of(out)["vocab_size"] == len(rows_of(out))


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_transformers_loads_the_result_with_its_tokenizer(tied: bool, bench: Bench) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    models = three(tied=tied)
    out = bench.made(MEAN, UNION, models)
    model, told = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(told.values())
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert len(tokenizer) == model.config.vocab_size == len(vocab_of(out))
    assert tokenizer.eos_token_id == model.config.eos_token_id
    for text in PROBES:
        ids = tokenizer(text, return_tensors="pt").input_ids
        assert tokenizer.decode(ids[0]) == text
        with torch.no_grad():
            assert torch.isfinite(model(ids).logits).all()


def test_result_is_explained_verified_and_bound_to_the_tokenizers(bench: Bench) -> None:
    from tensorsurgeon.explain import explain, explanation_text
    from tensorsurgeon.verify import verify

    models = three()
    out = bench.made(MEAN, UNION, models)
    manifest = config_of(out, "tensorsurgeon.json")
    assert {"tokenizer.json", "tokenizer_config.json"} <= manifest["files"].keys()
    assert not verify(out).problems
    told = explanation_text(explain(out, EMBEDDING))
    assert "0.142857 * vocabulary, rows = [300, 53, 38] of\n" in told
    before = binding_of(bench.plan(MEAN, UNION, models))
    assert binding_of(bench.plan(MEAN, UNION, models)) == before
    tokenizer = bench.folder / "both/tokenizer.json"
    tokenizer.write_bytes(tokenizer.read_bytes() + b"\n")
    assert binding_of(bench.plan(MEAN, UNION, models)) != before


def test_notes_tell_whose_tokens_the_result_has(bench: Bench) -> None:
    plan = bench.plan(MEAN, UNION, three())
    assert "vocabulary: 361 tokens in 361 rows, those of 'sea' and 61 more" in plan.notes
    assert not any("vocab_size" in note for note in plan.notes)
