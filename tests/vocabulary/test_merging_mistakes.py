"""What a recipe says of a vocabulary, and models that cannot have one: each told at its place."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tensorsurgeon import api
from tensorsurgeon.errors import (
    ArchitectureError,
    CheckpointError,
    PlanError,
    RecipeError,
    TensorSurgeonError,
)
from tensorsurgeon.vocabulary import TOKENIZER_LIMIT
from tests.cli.checkpoints import Tensors
from tests.vocabulary.checkpoints import EMBEDDING, HEAD, Bench, Tiny, config_of, linear, three
from tests.vocabulary.makers import FOREST, SEA, bpe, with_added, word_piece

RECIPE = """\
models: {sea: ./sea, forest: ./forest, both: ./both, mean: {linear: {models: [sea, forest]}}}
result: {linear: {models: [mean, both]}}
output:
  path: ./out
"""

MISTAKES: dict[str, tuple[str, str, str]] = {
    "no source": (
        "  vocabulary: {pad_to_multiple_of: 8}",
        "5:15: output: vocabulary needs 'source'",
        "known: source, tokens, pad_to_multiple_of",
    ),
    "unknown source": (
        "  vocabulary: {source: ocean}",
        "5:24: there is no model 'ocean'",
        "known: both, forest, mean, sea",
    ),
    "source that is no name": (
        "  vocabulary: {source: [sea]}",
        "5:24: output: vocabulary: source: a model's name, not a list",
        "",
    ),
    "unknown key": (
        "  vocabulary: {source: sea, token: {}}",
        "5:29: output: vocabulary has no parameter 'token'",
        "did you mean 'tokens'?",
    ),
    "padding": (
        "  vocabulary: {source: sea, pad_to_multiple_of: 0}",
        "5:49: output: vocabulary: pad_to_multiple_of: at least 1, not 0",
        "",
    ),
    "rule that is none": (
        "  vocabulary: {source: sea, tokens: {a: sea}}",
        "5:41: output: vocabulary: tokens.a: takes a mapping, not text",
        "",
    ),
    "unknown key of a rule": (
        "  vocabulary: {source: sea, tokens: {a: {from: sea}}}",
        "5:42: output: vocabulary: a token has no parameter 'from'",
        "known: force, source",
    ),
    "model of a row": (
        "  vocabulary: {source: sea, tokens: {a: {source: {model: sae, token: b}}}}",
        "5:58: there is no model 'sae'",
        "did you mean 'sea'?",
    ),
    "token of a row": (
        "  vocabulary: {source: sea, tokens: {a: {source: {model: sea}}}}",
        "5:50: output: vocabulary: a token's row needs 'token'",
        "known: model, token",
    ),
    "row of a merge": (
        "  vocabulary: {source: sea, tokens: {a: {source: mean}}}",
        "5:50: 'mean' is made of other models, and a row is one of a model that is read",
        "name one of sea, forest, both",
    ),
    "token that nobody has": (
        "  vocabulary:\n    source: sea\n    tokens:\n      zebra: {source: zero}\n"
        '      "<|pda|>": {source: forest}',
        "8:7: token 'zebra': no model has it",
        "did you mean '<|pad|>'?",
    ),
    "token that the model has not": (
        '  vocabulary: {source: sea, tokens: {"<|pad|>": {source: sea}}}',
        "5:38: token '<|pad|>': 'sea' has it not",
        "models that have it: forest, both",
    ),
    "row that is not there": (
        "  vocabulary: {source: sea, tokens: {a: {source: {model: sea, token: 305}}}}",
        "5:38: token 'a': id 305 has no row in 'sea'",
        "its rows are 0 to 304",
    ),
    "both ways": (
        "  tokenizer: sea\n  vocabulary: {source: sea}",
        "5:3: output: tokenizer: the files are made from 'vocabulary', which says whose they are",
        "keep one of the two",
    ),
    "template": (
        "  vocabulary: {source: sea}\n  chat_template: chatlm",
        "6:18: chat_template 'chatlm' is neither Jinja nor a known name",
        "did you mean 'chatml'?",
    ),
    "template that is no text": (
        "  chat_template: [a]",
        "5:18: the recipe: output.chat_template: a template, not a list",
        "",
    ),
}


@pytest.fixture
def laid(bench: Bench) -> Bench:
    """Three models in their folders."""
    for name, model in three().items():
        model.write(bench.folder / name)
    return bench


def refused(bench: Bench, recipe: str, kind: type[TensorSurgeonError] = RecipeError) -> str:
    """What is wrong with a recipe; nothing is written."""
    bench.path.write_text(recipe)
    with pytest.raises(kind) as caught:
        api.plan(bench.path)
    assert type(caught.value) is kind
    assert not (bench.folder / "out").exists()
    return str(caught.value)


@pytest.mark.parametrize(("output", "what", "fix"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_told_at_its_line_and_column(
    output: str, what: str, fix: str, laid: Bench
) -> None:
    told = refused(laid, RECIPE + output + "\n")
    assert f"{laid.path}:{what}" in told
    assert fix in told


def test_mistakes_are_told_together(laid: Bench) -> None:
    rules = '{zebra: {source: zero}, "<|pad|>": {source: sea}, a: {source: mean}}'
    told = refused(laid, f"{RECIPE}  vocabulary: {{source: sea, tokens: {rules}}}\n")
    assert told.count("recipe.yaml:5:") == 3


@pytest.mark.parametrize(
    ("word", "rule"), [("union", ""), ("zero", ", tokens: {a: {source: zero}}")]
)
def test_word_that_is_a_model_as_well_is_refused(word: str, rule: str, laid: Bench) -> None:
    source = "union" if word == "union" else "sea"
    models = f"{{{word}: ./forest, sea: ./sea}}"
    told = refused(
        laid,
        f"models: {models}\nresult: {{linear: {{models: [{word}, sea]}}}}\n"
        f"output: {{path: ./out, vocabulary: {{source: {source}{rule}}}}}\n",
    )
    assert f"'{word}' is " in told
    assert "give the model another name" in told


def test_vocabularies_that_differ_are_still_refused_and_the_fix_names_the_key(laid: Bench) -> None:
    told = refused(laid, RECIPE, ArchitectureError)
    assert f"{laid.path}:1:" in told
    assert "their vocabularies differ in size" in told
    assert "output: {vocabulary: {source: union}}" in told


def test_tokenizers_that_mean_different_things_by_a_string_cannot_be_joined(bench: Bench) -> None:
    models = {"sea": Tiny(tokenizer=bpe(SEA)), "bert": Tiny(tokenizer=word_piece(SEA))}
    with pytest.raises(ArchitectureError) as caught:
        bench.plan(linear("sea", "bert"), {"vocabulary": {"source": "union"}}, models)
    (problem,) = caught.value.problems
    line = next(
        number
        for number, text in enumerate(bench.path.read_text().splitlines(), 1)
        if '"vocabulary"' in text
    )
    assert problem.where.startswith(f"{bench.path}:{line}:")
    assert "the vocabularies of 'sea' and 'bert' cannot be joined" in problem.what
    assert problem.fix == "merge models whose tokenizers are of one kind"


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def too_large(folder: Path) -> None:
    os.truncate(folder / "tokenizer.json", TOKENIZER_LIMIT + 1)


def not_json(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def more_tokens_than_rows(folder: Path) -> None:
    many = with_added(bpe(FOREST), *(f"<{number}>" for number in range(9)))
    many.save(str(folder / "tokenizer.json"))


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no tokenizer": (without_tokenizer, "no file of a tokenizer, and no tokenizer.json"),
    "too large": (too_large, "tokenizer.json: is larger than 100 MB"),
    "damaged": (not_json, "tokenizer.json: not JSON"),
    "tokens without rows": (more_tokens_than_rows, "has id 301, and the embedding has 301 rows"),
}


@pytest.mark.parametrize(("spoil", "what"), FOLDERS.values(), ids=FOLDERS)
def test_tokenizer_that_cannot_be_used_is_told_with_its_folder(
    spoil: Callable[[Path], None], what: str, laid: Bench
) -> None:
    spoil(laid.folder / "forest")
    told = refused(laid, RECIPE + "  vocabulary: {source: union}\n", CheckpointError)
    assert told.startswith(str(laid.folder / "forest"))
    assert what in told


def test_config_with_an_id_that_the_result_has_no_token_for_is_refused(bench: Bench) -> None:
    models = three()
    config = {"image_token_id": models["both"].tokenizer.token_to_id("<a>")}
    models["both"] = Tiny(tokenizer=models["both"].tokenizer, config=config)
    with pytest.raises(
        CheckpointError, match="'image_token_id' is 340, token '<a>' there"
    ) as caught:
        bench.plan(linear("both", "sea"), {"vocabulary": {"source": "sea"}}, models_of(models))
    assert "list the token in the recipe's tokenizer" in str(caught.value)


def models_of(models: dict[str, Tiny]) -> dict[str, Any]:
    return {name: models[name] for name in ("both", "sea")}


def renamed(tensors: Tensors) -> Tensors:
    return {name.replace("embed_tokens", "words"): values for name, values in tensors.items()}


def other_rows(tensors: Tensors) -> Tensors:
    return tensors | {HEAD: np.zeros((400, 16), np.float32)}


def fewer_rows(tensors: Tensors) -> Tensors:
    rows = {name: values[:-3] for name, values in tensors.items() if name in (EMBEDDING, HEAD)}
    return tensors | rows


def per_layer(tensors: Tensors) -> Tensors:
    return tensors | {"model.embed_tokens_per_layer.weight": np.zeros((302, 8), np.float32)}


def unknown_bias(tensors: Tensors) -> Tensors:
    return tensors | {"score_bias": np.zeros((1, 305), np.float32)}


MODELS: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "no embedding": (renamed, "has no tensor that is known to be its embedding"),
    "two sizes": (other_rows, f"'{EMBEDDING}' has 305 rows and '{HEAD}' 400"),
    "less than said": (fewer_rows, f"vocab_size is 305, and '{EMBEDDING}' has 302 rows"),
    "embeddings of each layer": (per_layer, "tensor 'model.embed_tokens_per_layer.weight' is"),
    "unknown bias": (unknown_bias, "tensor 'score_bias' is [1, 305], which could be a row for"),
}


@pytest.mark.parametrize(("change", "what"), MODELS.values(), ids=MODELS)
def test_model_whose_vocabulary_tensors_are_not_certain_is_refused(
    change: Callable[[Tensors], Tensors], what: str, laid: Bench
) -> None:
    folder = laid.folder / "sea"
    save_file(change(three()["sea"].tensors()), folder / "model.safetensors")
    told = refused(laid, RECIPE + "  vocabulary: {source: union}\n", ArchitectureError)
    assert told.startswith(str(folder))
    assert what in told


def test_rows_of_another_width_are_refused(bench: Bench) -> None:
    models = {n: three()[n] for n in ("sea", "both")}
    models["both"] = Tiny(tokenizer=models["both"].tokenizer, hidden=32)
    with pytest.raises(ArchitectureError, match="cannot take their rows") as caught:
        bench.plan("sea", {"vocabulary": {"source": "both"}}, models)
    assert "has 16 columns, and 'model.embed_tokens.weight' of 'both' 32" in str(caught.value)
    rules = {
        token: {"source": "zero"}
        for token in models["both"].tokenizer.get_vocab().keys()
        - models["sea"].tokenizer.get_vocab().keys()
    }
    plan = bench.plan("sea", {"vocabulary": {"source": "both", "tokens": rules}}, models)
    assert next(t.spec.shape for t in plan.tensors if t.spec.name == EMBEDDING) == (343, 16)


def test_embedding_of_integers_is_refused(laid: Bench) -> None:
    tensors = three()["sea"].tensors()
    tensors |= {name: tensors[name].astype(np.int8) for name in (EMBEDDING, HEAD)}
    save_file(tensors, laid.folder / "sea" / "model.safetensors")
    told = refused(
        laid,
        "models: {sea: ./sea, both: ./both}\nresult: sea\n"
        "output: {path: ./out, vocabulary: {source: both}}\n",
        PlanError,
    )
    assert "is made of I8 numbers" in told


def test_tokenizer_that_changes_while_it_is_merged_is_noticed(bench: Bench) -> None:
    models = three()
    plan = bench.plan(linear(*models), {"vocabulary": {"source": "union"}}, models)
    tokenizer = bench.folder / "forest/tokenizer.json"
    tokenizer.write_bytes(tokenizer.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match="has changed since it was looked at"):
        api.apply(plan, threads=1)
    assert not (bench.folder / "out").exists()


def test_generation_config_with_another_token_is_refused_with_the_model(bench: Bench) -> None:
    models = three()
    models["both"].write(bench.folder / "both")
    config = config_of(bench.folder / "both", "generation_config.json") | {
        "forced_bos_token_id": 340
    }
    (bench.folder / "both/generation_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="both: config: 'forced_bos_token_id' is 340"):
        bench.plan(linear("both", "sea"), {"vocabulary": {"source": "sea"}}, models_of(models))
