"""Every weight of every tensor is the one that mergekit's planner resolves."""

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tensorsurgeon.documents import load_documents
from tensorsurgeon.errors import RecipeError
from tensorsurgeon.mergekit import translate
from tensorsurgeon.mergekit.methods import METHODS, Form, Method, Parameter, Scope
from tests.mergekit.conftest import DEPTHS, Mergekit
from tests.mergekit.recipes import RECIPES
from tests.mergekit.resolution import Leaf, Merged, Resolution
from tests.mergekit.strategies import recipes


def with_models(text: str, models: Path) -> str:
    """A recipe in which the models are where they are."""
    return dedent(text).replace("~", f"{models}/")


def check_as_mergekit(text: str, models: Path, mergekit: Mergekit) -> None:
    """Holds what we make of each tensor against what mergekit makes of it."""
    found = load_documents(text.encode(), "m.yml")
    document = translate(found, "m.yml").document
    ours = Resolution(document, {f"{models}/{name}": depth for name, depth in DEPTHS.items()})
    config = YAML(typ="safe", pure=True).load(text)
    theirs = mergekit(config)
    assert set(ours.names()) == theirs.keys(), theirs
    method = METHODS[config["merge_method"]]
    for name in ours.names():
        check_tensor(ours.at(name), theirs[name], method)


def check_tensor(ours: Merged, theirs: dict[str, Any], method: Method) -> None:
    """The same inputs, in the same parts, with the same parameters."""
    inputs: dict[str, Leaf] = {model: (model, name) for model, name in theirs["inputs"].items()}
    based = ours.base or (ours.models[0] if method.base_is == "first" else None)
    if method.base != "none":
        assert based == inputs.get(theirs["base"] or "")
    assert {*ours.models, *filter(None, [ours.base])} == set(inputs.values())
    others = [leaf for leaf in inputs.values() if leaf != based]
    assert [leaf for leaf in ours.models if leaf != based] == others or method.base == "none"
    for parameter in method.parameters:
        if parameter.form is not Form.NOTHING and parameter.only_with is None:
            check_parameter(ours, theirs, parameter)


def check_parameter(ours: Merged, theirs: dict[str, Any], parameter: Parameter) -> None:
    if ours.operator == "source":
        default = [parameter.default if parameter.form is Form.SCHEDULE else 1.0]
        found: Any = default * len(ours.models)
    elif parameter.ours in ours.parameters:
        found = ours.parameters[parameter.ours]
    elif parameter.form is Form.SWITCH:
        found = parameter.switch[bool(parameter.default)]
    else:
        found = parameter.default
    if parameter.scope is Scope.MERGE:
        wanted = theirs["merge"][parameter.name]
        if ours.operator != "source":
            assert found == (parameter.switch[wanted] if parameter.form is Form.SWITCH else wanted)
        return
    given = found if isinstance(found, list) else [found] * len(ours.models)
    for (model, _), value in zip(ours.models, given, strict=True):
        wanted = theirs["models"][model][parameter.name]
        assert value == (parameter.default if wanted is None else wanted)


@pytest.mark.parametrize("text", RECIPES.values(), ids=RECIPES)
def test_every_parameter_of_every_tensor_is_as_mergekit_resolves_it(
    text: str, models: Path, mergekit: Mergekit
) -> None:
    check_as_mergekit(with_models(text, models), models, mergekit)


IGNORED = {
    "a switch outside of parameters": ("", "normalize: false"),
    "a parameter of another method": ("parameters: {lambda: 1}", "parameters: {gamma: 0.5}"),
    "a filter that is a glob": ("", "parameters: {lambda: [{filter: '*.mlp.*', value: 3}]}"),
    "what stands behind a value for all": (
        "parameters: {lambda: 2}",
        "parameters: {lambda: [{value: 2}, {filter: mlp, value: 3}]}",
    ),
    "an empty list": ("", "parameters: {lambda: []}"),
}


@pytest.mark.parametrize(("without", "with_"), IGNORED.values(), ids=IGNORED)
def test_mergekit_ignores_what_is_refused_here(
    without: str, with_: str, models: Path, mergekit: Mergekit
) -> None:
    begun = f"merge_method: ties\nbase_model: {models}/base\n"
    begun += f"models: [{{model: {models}/a, parameters: {{weight: 1}}}}]\n"
    load = YAML(typ="safe", pure=True).load
    theirs = mergekit(load(begun + with_))
    assert "error" not in theirs
    assert theirs == mergekit(load(begun + without))
    with pytest.raises(RecipeError):
        translate(load_documents((begun + with_).encode(), "m.yml"), "m.yml")


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_recipes_at_random_are_resolved_as_mergekit_does(
    data: st.DataObject, models: Path, mergekit: Mergekit
) -> None:
    depths = {str(models / name): DEPTHS[name] for name in ("a", "b", "base", "deep")}
    recipe = data.draw(recipes(depths), "recipe")
    check_as_mergekit(json.dumps(recipe), models, mergekit)
