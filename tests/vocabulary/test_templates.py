"""Chat templates: given as text, by name, or as most of the models have them."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tensorsurgeon.errors import CheckpointError, RecipeError
from tensorsurgeon.vocabulary import chat_template, join, tokenizer_files
from tests.vocabulary.makers import SEA, bpe, files_of, lay_down, vocabulary_of, with_added

JINJA = "{{ messages[0]['content'] }}"
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Ho"},
    {"role": "user", "content": "Who?"},
]


def has(template: Any = None, jinja: str | None = None) -> tuple[str, dict[str, bytes]]:
    files = {} if jinja is None else {"chat_template.jinja": jinja.encode()}
    config = json.dumps({"chat_template": template}).encode()
    return "model", {**files, "tokenizer_config.json": config}


def test_text_is_taken_as_it_is() -> None:
    assert chat_template(JINJA, []) == JINJA


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([], None),
        ([has()], None),
        ([has("{a}"), has("{b}"), has("\n{b} ")], "{b}"),
        ([has("{a}"), has("{b}")], "{a}"),
        ([has(), has("{b}")], "{b}"),
        ([has("{a}", jinja="{b}")], "{b}"),
        (
            [has([{"name": "tool", "template": "{t}"}, {"name": "default", "template": "{d}"}])],
            "{d}",
        ),
        ([has([{"name": "tool", "template": "{t}"}])], None),
        ([("model", {"chat_template.json": b'{"chat_template": "{p}"}'})], "{p}"),
    ],
)
def test_auto_is_what_most_of_the_models_have_and_the_first_of_equals(
    models: list[tuple[str, dict[str, bytes]]], expected: str | None
) -> None:
    assert chat_template("auto", models) == expected


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("chatlm", "did you mean 'chatml'? known: alpaca, auto, chatml"),
        ("llama3", "known: alpaca, auto, chatml"),
        ("", "known: alpaca, auto, chatml"),
    ],
)
def test_unknown_name_is_refused(said: str, fix: str) -> None:
    with pytest.raises(RecipeError) as caught:
        chat_template(said, [])
    (problem,) = caught.value.problems
    assert problem.what == f"chat_template '{said}' is neither Jinja nor a known name"
    assert problem.fix == f"paste the template's text in its place; {fix}"


def test_template_that_is_no_text_is_refused() -> None:
    with pytest.raises(CheckpointError) as caught:
        chat_template("auto", [("model", {"chat_template.jinja": b"{\xff}"})])
    assert str(caught.value) == "model/chat_template.jinja: not UTF-8 at byte 1"


NAMED = {
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    "<|im_start|>assistant\nHo<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "alpaca": "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHo<|end|>\n\n"
    "### Instruction:\nWho?\n\n### Response:\n",
}


@pytest.mark.parametrize("name", NAMED)
def test_named_templates_render_as_the_form_is_known(name: str, tmp_path: Path) -> None:
    files = files_of(bpe(SEA), eos_token="<|end|>")
    joined = join({"one": vocabulary_of(files)})
    made = tokenizer_files(joined, files, chat_template(name, []))
    theirs = AutoTokenizer.from_pretrained(lay_down(tmp_path / "made", made))
    rendered = theirs.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert rendered == NAMED[name]


@pytest.mark.parametrize("beside", [{}, {"chat_template.jinja": b"old"}])
@pytest.mark.parametrize("config", [{}, {"chat_template": "old"}])
@pytest.mark.parametrize("joins", [True, False])
def test_given_template_stands_in_every_place_that_has_one(
    beside: dict[str, bytes], config: dict[str, Any], joins: bool, tmp_path: Path
) -> None:
    files = files_of(bpe(SEA), **config) | beside | {"chat_template.json": b'{"chat_template": ""}'}
    other = with_added(bpe(SEA), "<a>") if joins else bpe(SEA)
    joined = join({"one": vocabulary_of(files), "other": vocabulary_of(other)})
    assert joined.is_kept != joins
    made = tokenizer_files(joined, files, JINJA)
    theirs = AutoTokenizer.from_pretrained(lay_down(tmp_path / "made", made))
    assert theirs.chat_template == JINJA
    assert not [name for name, data in made.items() if b'"old"' in data]
    assert json.loads(made["chat_template.json"]) == {"chat_template": JINJA}
    if not joins:
        assert made["tokenizer.json"] == files["tokenizer.json"]
