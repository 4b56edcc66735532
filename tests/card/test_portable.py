"""A recipe's text without paths of this machine is the same recipe."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tensorsurgeon.documents.portable import is_local, portable_path
from tensorsurgeon.operators import OPERATORS
from tensorsurgeon.recipe import Operator, Recipe, Reference, Source, parse_recipe
from tensorsurgeon.recipe.portable import portable_text
from tests.card.names import evil_names

CASES = {
    "absolute": ("models: {a: /home/me/m}\nresult: a\n", "models: {a: ./m}\nresult: a\n"),
    "home": ("models:\n  a: ~/m  # mine\nresult: a\n", "models:\n  a: ./m  # mine\nresult: a\n"),
    "upwards": ("models: {a: '../x/m'}\nresult: a\n", "models: {a: './m'}\nresult: a\n"),
    "a space": ('models: {a: "/x/my m"}\nresult: a\n', 'models: {a: "./my m"}\nresult: a\n'),
    "relative": ("models: {a: ./x/m}\nresult: a\n", "models: {a: ./x/m}\nresult: a\n"),
    "of the Hub": ("models: {a: o/m, b: hf://o/../m}\n", "models: {a: o/m, b: hf://o/../m}\n"),
    "output": ("output: {path: /home/me/out, seed: 1}\n", "output: {path: ./out, seed: 1}\n"),
    "pushed": ("output: {push: me/x, path: ../o}\n", "output: {push: null, path: ./o}\n"),
    "long form": (
        "models:\n  a:\n    source:\n      path: /x/m\n      layers: enc.block\n",
        "models:\n  a:\n    source:\n      path: ./m\n      layers: enc.block\n",
    ),
    "in an expression": (
        "result: {linear: {models: [{source: /x/m}, {source: {path: /y/n}}]}}\n",
        "result: {linear: {models: [{source: ./m}, {source: {path: ./n}}]}}\n",
    ),
    "folded": (
        "models:\n  a: >-  # long\n    /home/me\n\n  b: /x/m\n",
        'models:\n  a: "./me"  # long\n\n  b: ./m\n',
    ),
    "over two lines": ("models: {a: '/x/y\n   z'}\n", 'models: {a: "./y z"}\n'),
    "anchored": ("models: {a: &p /x/m, b: *p}\n", "models: {a: &p ./m, b: *p}\n"),
    "tagged": ("models: {a: !!str /x/m}\n", "models: {a: !!str ./m}\n"),
    "two of a name": (
        "models: {a: /x/m, b: /y/m, c: ./m-2, d: /x/m}\n",
        "models: {a: ./m, b: ./m-3, c: ./m-2, d: ./m}\n",
    ),
    "a model's name": ("models: {m: /x/m, a: m}\n", "models: {m: ./m, a: m}\n"),
    "a path for a name": ("models: {./m: ./a, b: /x/m}\n", "models: {./m: ./a, b: ./m-2}\n"),
    "a name for a path": ("models: {/m: &m /m, a: *m}\n", "models: {/m: &m /m, a: *m}\n"),
    "pushed, odd": (
        "output:\n  push: &p !!str >\n    me/x\n  path: /o\n",
        "output:\n  push: &p null\n  path: ./o\n",
    ),
    "nothing left": ("models: {a: /, b: .., c: '~', d: ~me}\n", None),
    "JSON": ('{"models": {"a": "/x/m"}, "result": "a"}', '{"models": {"a": "./m"}, "result": "a"}'),
    "Windows lines": ("models:\r\n  é: /x/模/é\r\n", 'models:\r\n  é: "./é"\r\n'),
    "a mark first": ("\ufeffmodels: {a: /x/m}\n", "models: {a: ./m}\n"),
    "only alike": ("# /home/me\nmodels: {a: ./a}\nresult: {stack: [{model: a}]}\n", None),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES.keys())
def test_paths_are_replaced_at_their_places(text: str, expected: str | None) -> None:
    if expected is None:
        expected = text
    if "~me" in text:
        expected = "models: {a: ./model, b: ./model-2, c: './model-3', d: ./model-4}\n"
    assert portable_text(text) == expected
    assert portable_text(expected) == expected


PATHS = st.one_of(
    evil_names.map(lambda name: "/home/me/" + name.replace("\ud800", "")),
    evil_names.map(lambda name: "../" + name.replace("\ud800", "")),
    st.sampled_from(["./a", "org/name", "hf://org/name@v1", "~/a", "/a", "~", "x", "../x/a"]),
).filter(lambda path: "\x00" not in path)


@given(
    paths=st.lists(PATHS, min_size=2, max_size=4),
    inline=PATHS,
    output=PATHS,
    spaces=st.sampled_from([None, 2]),
)
@example(paths=["/x/\ud800", "/x/\U0001f600"], inline="/x/\x85", output="~", spaces=None)
@settings(deadline=None)
def test_recipe_without_local_paths_is_the_same_recipe(
    paths: list[str], inline: str, output: str, spaces: int | None
) -> None:
    names = [f"m{index}" for index in range(len(paths))]
    recipe = {
        "models": dict(zip(names, paths, strict=True)),
        "result": {"linear": {"models": [*names, {"source": inline}]}},
        "output": {"path": output, "dtype": "bfloat16"},
    }
    text = _as_yaml(recipe, spaces)
    before, after = _parsed(text), _parsed(portable_text(text))
    mapping: dict[str, str] = {}
    for was, now in zip(_paths(before), _paths(after), strict=True):
        assert mapping.setdefault(was, now) == now
        assert is_local(was) or was == now
        assert not is_local(now)
    assert len(set(mapping.values())) == len(mapping)
    assert _shape(before) == _shape(after)


def _as_yaml(value: Any, spaces: int | None) -> str:
    """JSON, which is YAML; but beyond the basic plane, JSON's escapes are not YAML's."""
    text = json.dumps(value, ensure_ascii=False, indent=spaces)
    return "".join(c if c.isprintable() or c == "\n" else _yaml_escape(c) for c in text)


def _yaml_escape(character: str) -> str:
    return f"\\U{ord(character):08x}"


def _parsed(text: str) -> Recipe:
    return parse_recipe(text.encode(), "recipe.yaml", OPERATORS)


def _paths(recipe: Recipe) -> list[str]:
    models = (*recipe.models.values(), *_operands(recipe))
    found = [model.path for model in models if isinstance(model, Source)]
    return [*found, recipe.output.path or ""]


def _operands(recipe: Recipe) -> tuple[Reference | Operator, ...]:
    assert isinstance(recipe.result, Operator)
    return recipe.result.operands()


def _shape(recipe: Recipe) -> Any:
    """All of a recipe but its paths."""
    return (
        [(name, type(model)) for name, model in recipe.models.items()],
        [each if isinstance(each, Reference) else type(each) for each in _operands(recipe)],
        recipe.output.dtype,
    )


@pytest.mark.parametrize("path", ["/a", "~", "~/a", "../a", "a/../b", "./..", "/"])
def test_path_of_this_machine_is_known(path: str) -> None:
    assert is_local(path)
    assert not is_local(portable_path(path, set()))


@pytest.mark.parametrize("path", ["a", "./a", "org/name", "a..b", "hf://o/..", "a~"])
def test_other_path_is_none_of_this_machine(path: str) -> None:
    assert not is_local(path)
