"""Whatever a file holds, it becomes a recipe or is refused with its mistakes."""

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tensorsurgeon.documents import load_document, load_documents
from tensorsurgeon.errors import RecipeError
from tensorsurgeon.mergekit import recipe_text, translate
from tensorsurgeon.mergekit.methods import METHODS

WORDS = st.sampled_from(
    ["a", "b", "org/a@v1+b", "union", "base", "mlp", "layers.1.", "5.mlp", "*", "", "zero", "bf16"]
)
SCALARS = st.one_of(WORDS, st.sampled_from([0, 1, 4, 0.5, -1, 1e30, True, None, "0.5", "yes"]))
KEYS = st.sampled_from(
    re.findall(
        r"\w+",
        """
        model models slices modules sources layer_range parameters weight density t scale normalize
        lambda filter value base_model tokenizer tokenizer_source tokens source force kind token
        path revision lora name dtype out_dtype chat_template merge_method default
        """,
    )
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)
SETTINGS = st.dictionaries(KEYS, ANYTHING, max_size=2)
MODELS = st.lists(st.fixed_dictionaries({"model": WORDS}, optional={"parameters": SETTINGS}))
RANGES = st.sampled_from([[0, 4], [4, 8], [3, 3], [0], "all"])
SOURCES = st.lists(
    st.fixed_dictionaries(
        {"model": WORDS, "layer_range": RANGES}, optional={"parameters": SETTINGS}
    )
)
DOCUMENTS = st.fixed_dictionaries(
    {"merge_method": st.sampled_from(sorted(METHODS))},
    optional={
        "base_model": WORDS,
        "models": MODELS,
        "slices": st.lists(st.fixed_dictionaries({"sources": SOURCES})),
        "parameters": SETTINGS,
        "name": WORDS,
        "tokenizer": ANYTHING,
        "modules": ANYTHING,
    },
)


@given(st.lists(st.one_of(DOCUMENTS, st.dictionaries(KEYS, ANYTHING)), min_size=1, max_size=3))
def test_any_document_becomes_a_recipe_or_is_refused(documents: list[dict[str, Any]]) -> None:
    read = load_documents(json.dumps(documents).encode(), "m.yml")
    try:
        made, problems = translate(read, "m.yml"), ()
    except RecipeError as refused:
        made, problems = None, refused.problems
    assert all(problem.where.startswith("m.yml:") for problem in problems)
    if made is not None:
        text = recipe_text(made.document, made.notes)
        assert load_document(text.encode(), "recipe.yaml", needs="") == made.document
