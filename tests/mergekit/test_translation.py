"""What mergekit's documents become: names, sources, adapters, steps, outputs."""

from textwrap import dedent
from typing import Any

import pytest

from tensorsurgeon.documents import load_document, load_documents, mark_at
from tensorsurgeon.mergekit import Translation, recipe_text, translate
from tests.mergekit.recipes import RECIPES


def translated(text: str) -> Translation:
    return translate(load_documents(dedent(text).encode(), "m.yml"), "m.yml")


def document(text: str) -> dict[str, Any]:
    return translated(text).document


@pytest.mark.parametrize("text", RECIPES.values(), ids=RECIPES)
def test_text_is_read_as_the_document_it_was_made_of(text: str) -> None:
    made = translated(text.replace("~", "./"))
    written = recipe_text(made.document, made.notes)
    assert load_document(written.encode(), "recipe.yaml", needs="") == made.document
    assert max(map(len, written.splitlines())) <= 100


def test_text_is_laid_out_to_be_read() -> None:
    made = translated("""\
        merge_method: dare_ties
        base_model: org/base
        slices:
          - sources:
              - {model: org/base, layer_range: [0, 8]}
              - model: org/tuned
                layer_range: [4, 12]
                parameters:
                  weight:
                    - {filter: self_attn, value: [0, 0.5]}
                    - {value: 0.25}
          - sources:
              - {model: org/base, layer_range: [8, 16]}
              - {model: org/tuned, layer_range: [0, 8]}
        parameters: {weight: 1.0, density: 0.5, int8_mask: true}
        dtype: bf16
        """)
    assert recipe_text(made.document, made.notes) == dedent("""\
        # line 15: no int8_mask: masks take no memory here
        models:
          base: org/base
          tuned: org/tuned
          slice-1:
            dare_ties:
              base: {stack: [{model: base, layers: [0, 8]}]}
              models:
                - {stack: [{model: tuned, layers: [4, 12]}]}
              weights: [[{match: '*self_attn*', value: [0, 0.5], outside: 0}, 0.25]]
              density: 0.5
          slice-2:
            dare_ties:
              base: {stack: [{model: base, layers: [8, 16]}]}
              models:
                - {stack: [{model: tuned, layers: [0, 8]}]}
              weights: [1.0]
              density: 0.5
        result:
          stack:
            - {model: slice-1}
            - {model: slice-2}
        output: {dtype: bfloat16}
        """)


def test_every_part_keeps_its_place() -> None:
    text = dedent("""\
        merge_method: ties
        base_model: org/base
        models:
          - model: org/a
            parameters:
              weight: [{filter: mlp, value: 0.5}, {value: [0, 1]}]
              density: 0.25
        dtype: float16
        """)
    found = translated(text).document
    places: dict[str, list[str | int]] = {
        "org/base": ["models", "base"],
        "ties": ["result", "ties"],
        "{filter: mlp": ["result", "ties", "weights", 0, 0],
        "[0, 1]": ["result", "ties", "weights", 0, 1, "value"],
        "0.25": ["result", "ties", "density"],
        "float16": ["output", "dtype"],
    }
    lines = text.splitlines()
    for wanted, path in places.items():
        mark = mark_at(found, path)
        assert lines[mark.line - 1][mark.column - 1 :].startswith(wanted)


def test_models_are_called_by_the_end_of_their_path_and_by_more_where_two_end_alike() -> None:
    models = document("""\
        merge_method: karcher
        models:
          - {model: org/one}
          - {model: org/two@main}
          - {model: /data/two}
          - {model: ./local}
          - {model: bare}
          - {model: {model: {path: org/one, revision: v2}}}
          - {model: ../..}
        """)["models"]
    assert models == {
        "org-one": "org/one",
        "org-two": "org/two@main",
        "data-two": "/data/two",
        "local": "./local",
        "bare": "./bare",
        "org-one-2": "org/one@v2",
        "model": "../..",
    }


def test_adapter_is_applied_to_its_model_however_it_is_written() -> None:
    models = document("""\
        merge_method: task_arithmetic
        base_model: org/base
        parameters: {weight: 1}
        models:
          - {model: org/base@v1+org/adapter@v2}
          - {model: {model: {path: org/base}, lora: {path: org/other, revision: v3}}}
        """)["models"]
    assert models == {
        "org-base": "org/base",
        "org-base-2": "org/base@v1",
        "org-base+adapter": {"lora": {"model": "org-base-2", "adapter": "org/adapter@v2"}},
        "org-base+other": {"lora": {"model": "org-base", "adapter": "org/other@v3"}},
    }


STEPS = """\
name: final one
merge_method: slerp
base_model: first
models: [{model: second+org/adapter}]
parameters: {t: 0.5}
---
name: first
merge_method: linear
models: [{model: org/a}, {model: org/b}]
parameters: {weight: 1}
dtype: float16
---
merge_method: passthrough
name: second
slices:
  - sources: [{model: first, layer_range: [0, 4]}]
  - sources: [{model: org/a, layer_range: [2, 4], parameters: {scale: 0.5}}]
"""


def test_documents_become_models_each_after_those_that_it_uses() -> None:
    made = translated(STEPS)
    assert made.document == {
        "models": {
            "a": "org/a",
            "b": "org/b",
            "first": {"linear": {"models": ["a", "b"], "weights": [1, 1]}},
            "second-slice-2": {
                "passthrough": {
                    "model": {"stack": [{"model": "a", "layers": [2, 4]}]},
                    "scale": 0.5,
                }
            },
            "second": {
                "stack": [{"model": "first", "layers": [0, 4]}, {"model": "second-slice-2"}]
            },
            "second+adapter": {"lora": {"model": "second", "adapter": "org/adapter"}},
            "final-one": {"slerp": {"models": ["first", "second+adapter"], "t": 0.5}},
        },
        "result": "final-one",
    }
    assert made.notes == ("line 11: no dtype of 'first': what is in between is not rounded",)


def test_a_list_of_documents_is_as_many_documents() -> None:
    listed = "\n".join("- " + "\n  ".join(part.strip().splitlines()) for part in STEPS.split("---"))
    assert document(listed) == document(STEPS)


def test_of_several_documents_the_one_without_a_name_is_written() -> None:
    made = document("""\
        merge_method: passthrough
        models: [{model: step}]
        ---
        name: step
        merge_method: passthrough
        models: [{model: org/a}]
        """)
    assert made == {"models": {"a": "org/a", "step": "a"}, "result": "step"}


@pytest.mark.parametrize(
    ("spelled", "written"),
    [
        ("dtype: bfloat16", "bfloat16"),
        ("dtype: bf16", "bfloat16"),
        ("dtype: fp16", "float16"),
        ("dtype: torch.float32", "float32"),
        ("{dtype: float32, out_dtype: fp16}", "float16"),
    ],
)
def test_dtype_is_the_outputs_in_any_spelling(spelled: str, written: str) -> None:
    lines = spelled.strip("{}").replace(", ", "\n")
    made = document(f"merge_method: passthrough\nmodels: [{{model: org/a}}]\n{lines}\n")
    assert made["output"] == {"dtype": written}


TIES = """\
merge_method: ties
base_model: org/base
models: [{model: org/a}]
parameters: {weight: 1}
"""


@pytest.mark.parametrize(
    ("tokenizer", "vocabulary"),
    [
        ("tokenizer_source: base", {"source": "base"}),
        ("tokenizer_source: union", {"source": "union"}),
        ("tokenizer_source: org/a", {"source": "a"}),
        ("tokenizer_source: model:org/other", {"source": "other"}),
        ("tokenizer: {}", {"source": "union"}),
        (
            "tokenizer: {source: base, pad_to_multiple_of: 8}",
            {"source": "base", "pad_to_multiple_of": 8},
        ),
        (
            "tokenizer: {tokens: {<s>: {source: org/a, force: true}, <e>: {source: {kind: zero}}}}",
            {
                "source": "union",
                "tokens": {"<s>": {"source": "a", "force": True}, "<e>": {"source": "zero"}},
            },
        ),
        (
            "tokenizer: {tokens: {<x>: {source: {kind: model_token, model: org/a, token: <s>}}}}",
            {"source": "union", "tokens": {"<x>": {"source": {"model": "a", "token": "<s>"}}}},
        ),
        (
            "tokenizer: {tokens: {<x>: {source: {kind: model_token, model: org/a, token_id: 7}}}}",
            {"source": "union", "tokens": {"<x>": {"source": {"model": "a", "token": 7}}}},
        ),
    ],
)
def test_tokenizer_becomes_the_outputs_vocabulary(
    tokenizer: str, vocabulary: dict[str, Any]
) -> None:
    assert document(TIES + tokenizer)["output"] == {"vocabulary": vocabulary}


def test_base_of_a_vocabulary_without_a_base_is_the_first_model() -> None:
    made = document("""\
        merge_method: karcher
        models: [{model: org/a}, {model: org/b}]
        tokenizer_source: base
        """)
    assert made["output"] == {"vocabulary": {"source": "a"}}


def test_chat_template_goes_along_as_it_is() -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert document(f"{TIES}chat_template: '{template}'")["output"] == {"chat_template": template}
    assert document(f"{TIES}chat_template: auto")["output"] == {"chat_template": "auto"}


def test_base_gives_config_and_tokenizer_wherever_it_can() -> None:
    first = "models: [{model: org/a}, {model: org/b}]\n"
    linear = document(f"merge_method: linear\nbase_model: org/b\n{first}parameters: {{weight: 1}}")
    assert linear["result"] == {"linear": {"models": ["b", "a"], "weights": [1, 1]}}
    slerp = document(f"merge_method: slerp\nbase_model: org/b\n{first}parameters: {{t: 0.25}}")
    assert slerp["result"] == {"slerp": {"models": ["b", "a"], "t": 0.25}}


def test_base_that_is_not_merged_gives_the_tokenizer_and_that_is_said() -> None:
    made = translated("""\
        merge_method: passthrough
        base_model: org/base
        slices:
          - sources: [{model: org/a, layer_range: [0, 4]}]
        """)
    assert made.document["output"] == {"tokenizer": "base"}
    assert made.notes == (
        "line 2: config.json is of 'org/a', the first that is merged, not of base_model",
    )


def test_average_of_one_model_is_that_model() -> None:
    one = "merge_method: linear\nmodels: [{model: org/a, parameters: {weight: 0.5}}]\n"
    assert document(one) == {"models": {"a": "org/a"}, "result": "a"}
    scaled = document(one + "parameters: {normalize: false}")
    assert scaled["result"] == {"passthrough": {"model": "a", "scale": 0.5}}


def test_modules_that_are_all_alike_are_one_model_and_that_is_said() -> None:
    made = translated("""\
        merge_method: linear
        modules:
          text: {models: [{model: org/a}, {model: org/b}]}
          vision: {models: [{model: org/a}, {model: org/b}]}
        parameters: {weight: 1}
        """)
    assert made.document["result"] == {"linear": {"models": ["a", "b"], "weights": [1, 1]}}
    assert made.notes == (
        "line 2: all modules are merged alike, those that are not listed as well",
    )
