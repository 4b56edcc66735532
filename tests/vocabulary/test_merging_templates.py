"""A chat template for the result: of a recipe, of a name, or the one that most models have."""

import json
from pathlib import Path

import pytest

from tensorsurgeon import api
from tests.vocabulary.checkpoints import Bench, Tiny, config_of, linear, three
from tests.vocabulary.makers import SEA, bpe

OURS, THEIRS = "{{ messages[0].content }}", "{% for m in messages %}{{ m.content }}!{% endfor %}"


def same(*templates: str | None) -> dict[str, Tiny]:
    """Models that have one tokenizer, each with its template."""
    return {
        name: Tiny(tokenizer=bpe(SEA), seed=seed, template=template)
        for seed, (name, template) in enumerate(zip("abc", templates, strict=False))
    }


def shown(folder: Path) -> str:
    """A chat, as transformers shows it with a folder's template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return str(tokenizer.apply_chat_template([{"role": "user", "content": "sea"}], tokenize=False))


def test_template_of_the_recipe_is_written_without_a_vocabulary(bench: Bench) -> None:
    models = same(OURS, None)
    out = bench.made(linear("a", "b"), {"chat_template": THEIRS}, models)
    assert (out / "chat_template.jinja").read_text() == THEIRS
    assert config_of(out, "tokenizer_config.json")["chat_template"] == THEIRS
    assert (out / "tokenizer.json").read_bytes() == (bench.folder / "a/tokenizer.json").read_bytes()
    files = config_of(out, "tensorsurgeon.json")["files"]
    assert {"chat_template.jinja", "tokenizer_config.json", "tokenizer.json"} <= files.keys()
    assert shown(out) == "sea!"


def test_template_goes_to_the_tokenizer_of_another_model(bench: Bench) -> None:
    models = {name: three()[name] for name in ("sea", "forest")} | same(None)
    output = {"tokenizer": "forest", "chat_template": "chatml"}
    recipe = bench.recipe("a", output, models)
    text = json.loads(recipe.read_text())
    del text["models"]["sea"]
    recipe.write_text(json.dumps(text))
    made = api.apply(api.plan(recipe), threads=1).path
    assert made is not None
    assert (made / "tokenizer.json").read_bytes() == (
        bench.folder / "forest/tokenizer.json"
    ).read_bytes()
    assert "<|im_start|>user\nsea<|im_end|>" in shown(made)


@pytest.mark.parametrize("output", [{}, {"vocabulary": {"source": "union"}}], ids=["", "joined"])
def test_auto_takes_the_template_that_most_models_have(
    output: dict[str, object], bench: Bench
) -> None:
    models = same(OURS, THEIRS, THEIRS)
    out = bench.made(linear("a", "b", "c"), {"chat_template": "auto", **output}, models)
    assert shown(out) == "sea!"


def test_auto_without_any_template_is_noted(bench: Bench) -> None:
    plan = bench.plan(linear("a", "b"), {"chat_template": "auto"}, same(None, None))
    assert "chat_template: none of the models has one" in plan.notes
    assert not any(own.name.endswith(".jinja") for own in plan.own_files)


def test_template_of_the_ground_is_kept_where_nothing_else_is_said(bench: Bench) -> None:
    models = {
        name: Tiny(tokenizer=model.tokenizer, template=THEIRS if name == "sea" else OURS)
        for name, model in three().items()
    }
    out = bench.made(linear(*models), {"vocabulary": {"source": "union"}}, models)
    assert shown(out) == "sea!"


def test_names_of_classes_are_dropped_from_what_is_made(bench: Bench) -> None:
    models = {name: model for name, model in three().items() if name != "forest"}
    models["sea"].write(bench.folder / "sea")
    config = config_of(bench.folder / "sea", "tokenizer_config.json")
    config["auto_map"] = {"AutoTokenizer": ["tokenization.Sea", None]}
    (bench.folder / "sea/tokenizer_config.json").write_text(json.dumps(config))
    (bench.folder / "sea/tokenization.py").write_text("raise SystemExit\n")
    out = bench.made(linear("sea", "both"), {"vocabulary": {"source": "union"}}, models)
    assert "auto_map" not in config_of(out, "tokenizer_config.json")
    assert not list(out.glob("*.py"))
    kept = api.plan(bench.path, copy_code=True)
    (own,) = (own for own in kept.own_files if own.name == "tokenizer_config.json")
    assert "auto_map" in json.loads(own.data)
