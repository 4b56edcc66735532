"""What a recipe means: schedules, globs, YAML 1.2, expressions and sources."""

from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorsurgeon import api
from tensorsurgeon.operators import OPERATORS, Linear, Slerp
from tensorsurgeon.plan import Plan, Stored, Sum
from tensorsurgeon.recipe import Place, Reference, Schedule, Source, parse_recipe
from tensorsurgeon.recipe.schedule import glob
from tests.cli.checkpoints import tiny_llama
from tests.cli.conftest import WriteRecipe

DEPTH = 12


def schedule(text: str) -> Schedule:
    """A schedule as it stands in a recipe."""
    recipe = f"models: {{a: ./a}}\nresult: {{slerp: {{models: [a, a], t: {text}}}}}\n"
    result = parse_recipe(recipe.encode(), "recipe.yaml", OPERATORS).result
    assert isinstance(result, Slerp)
    return result.t


def at_layer(layer: int, name: str = "", depth: int = DEPTH) -> Place:
    """A tensor of a layer."""
    return Place(name=name or f"model.layers.{layer}.mlp.up_proj.weight", layer=layer, depth=depth)


BEFORE = Place(name="model.embed_tokens.weight", layer="before", depth=DEPTH)
AFTER = Place(name="lm_head.weight", layer="after", depth=DEPTH)


@pytest.mark.parametrize("text", ["0.25", "[0.25]", "[0.25, 0.25, 0.25]", "[{value: 0.25}]"])
def test_constant_is_the_same_everywhere(text: str) -> None:
    places = [BEFORE, *map(at_layer, range(DEPTH)), AFTER]
    assert {schedule(text).at(place) for place in places} == {0.25}


@given(
    values=st.lists(st.floats(0, 1), min_size=1, max_size=9),
    depth=st.integers(1, 100),
    data=st.data(),
)
def test_list_is_interpolated_over_the_depth_as_numpy_does(
    values: list[float], depth: int, data: st.DataObject
) -> None:
    layer = data.draw(st.integers(0, depth - 1), "layer")
    found = schedule(str(values)).at(at_layer(layer, depth=depth))
    fraction = layer / max(depth - 1, 1)
    expected = np.interp(fraction, np.linspace(0, 1, len(values)), values)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_list_as_long_as_the_depth_gives_each_layer_its_own_value() -> None:
    values = [layer / 100 for layer in range(DEPTH)]
    found = [schedule(str(values)).at(at_layer(layer)) for layer in range(DEPTH)]
    np.testing.assert_allclose(found, values, rtol=1e-14)


def test_tensors_around_the_layers_take_the_first_and_the_last_value() -> None:
    t = schedule("[0.1, 0.9, 0.3]")
    assert (t.at(BEFORE), t.at(at_layer(0))) == (0.1, 0.1)
    assert (t.at(AFTER), t.at(at_layer(DEPTH - 1))) == (0.3, 0.3)


def test_rule_may_have_a_value_of_its_own_for_tensors_around_the_layers() -> None:
    t = schedule("""[
        {match: "*.mlp.*", value: 0.25, outside: 0.75},
        {match: "*head*", value: [0.5, 0.7], outside: 0.1},
        {value: [0, 1], outside: 0.3}]""")
    assert (t.at(BEFORE), t.at(AFTER)) == (0.3, 0.1)
    assert (t.at(at_layer(0)), t.at(at_layer(DEPTH - 1))) == (0.25, 0.25)
    inner = "model.layers.{}.norm.weight"
    assert t.at(at_layer(DEPTH - 1, inner.format(DEPTH - 1))) == 1
    assert str(schedule("[{value: 0.5, outside: 0.25}]")) == "varies"
    assert str(schedule("[{value: 0.5}]")) == "0.5"


def test_first_rule_that_matches_decides() -> None:
    t = schedule("""[
        {match: "*.layers.3.*", value: 0.3},
        {match: "*.mlp.*", value: [0, 1]},
        {match: "*.layers.?.self_attn.*", value: 0.7},
        {value: 0.5}]""")
    assert t.at(at_layer(3)) == 0.3
    assert t.at(at_layer(DEPTH - 1)) == 1
    assert t.at(at_layer(9, "model.layers.9.self_attn.q_proj.weight")) == 0.7
    assert t.at(at_layer(10, "model.layers.10.self_attn.q_proj.weight")) == 0.5
    assert t.at(AFTER) == 0.5


@pytest.mark.parametrize(
    ("pattern", "hit", "miss"),
    [
        ("*.layers.1.*", "model.layers.1.mlp.up_proj.weight", "model.layers.10.mlp.up_proj.weight"),
        ("*.layers.1*", "model.layers.11.mlp.up_proj.weight", "model.layers.21.mlp.up_proj.weight"),
        ("lm_head.weight", "lm_head.weight", "model.lm_head.weight"),
        ("*.weight", "model.norm.weight", "model.norm.weight_scale"),
        ("model.norm.weight", "model.norm.weight", "model-norm.weight"),
        ("layers.?", "layers.7", "layers.77"),
        ("a[0]", "a[0]", "a0"),
        ("*", "", None),
    ],
)
def test_glob_is_held_to_the_whole_name(pattern: str, hit: str, miss: str | None) -> None:
    assert glob(pattern).fullmatch(hit)
    assert miss is None or not glob(pattern).fullmatch(miss)


@given(st.text("ab.*?\n", max_size=8), st.text("ab.\n", max_size=10))
def test_glob_agrees_with_fnmatch(pattern: str, name: str) -> None:
    assert bool(glob(pattern).fullmatch(name)) == fnmatchcase(name, pattern)


def test_glob_of_many_stars_is_answered_at_once() -> None:
    assert not glob("*a" * 6 + "b").fullmatch("a" * 120)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1E-3", 1e-3), (".5", 0.5), ("1", 1.0), ("0.5e0", 0.5), ("+0.25", 0.25)],
)
def test_numbers_are_those_of_yaml_1_2(text: str, value: float) -> None:
    assert schedule(text).at(BEFORE) == value


@pytest.mark.parametrize("name", ["no", "yes", "on", "off", "y", "1:30", "0x", "~user", "a.b/c"])
def test_names_that_yaml_1_1_takes_for_something_else_are_names(name: str) -> None:
    text = f"models: {{{name}: ./a}}\nresult: {name}\n"
    result = parse_recipe(text.encode(), "recipe.yaml", OPERATORS).result
    assert isinstance(result, Reference)
    assert result.name == name


def test_anchors_and_aliases_spare_repetition() -> None:
    recipe = parse_recipe(
        b"""
        models: {a: ./a, b: ./b}
        result:
          linear:
            models: [a, b, {slerp: {models: [a, b], t: &ramp [0, 1]}}]
            weights: [*ramp, *ramp, 1]
        """,
        "recipe.yaml",
        OPERATORS,
    )
    assert isinstance(recipe.result, Linear)
    assert recipe.result.weights[0].at(AFTER) == 1


def test_json_is_a_recipe() -> None:
    text = b'\xef\xbb\xbf{"models": {"a": "./a"}, "result": "a", "output": {"max_shard_size": 7}}'
    recipe = parse_recipe(text, "recipe.json", OPERATORS)
    assert recipe.output.max_shard_size == 7


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("5GB", 5 * 10**9),
        ("512 MB", 512 * 10**6),
        ("1.5GiB", 3 * 2**29),
        ("2kb", 2000),
        ("64 KiB", 65536),
        ("1e3", 1000),
        ("4096", 4096),
        ("1 TB", 10**12),
    ],
)
def test_sizes_are_decimal_unless_they_say_otherwise(text: str, nbytes: int) -> None:
    recipe = f"models: {{a: ./a}}\nresult: a\noutput: {{max_shard_size: '{text}'}}\n"
    assert parse_recipe(recipe.encode(), "r", OPERATORS).output.max_shard_size == nbytes


def test_model_is_a_source_unless_its_text_names_a_model_before_it() -> None:
    text = b"models: {a: b, b: ./b, c: b}\nresult: {linear: {models: [a, c]}}\n"
    models = parse_recipe(text, "recipe.yaml", OPERATORS).models
    assert isinstance(models["a"], Source)
    assert models["a"].path == "b"
    assert isinstance(models["c"], Reference)


@pytest.fixture
def plan_of(models: Path, recipe: WriteRecipe) -> Plan:
    """The plan that all the recipes below must give."""
    return api.plan(
        recipe("""\
            models:
              a: ./a
              b: ./b
              both: {linear: {models: [a, b], weights: [1, 3]}}
              arc: {slerp: {models: [both, a], t: [0, 1]}}
              grown: {stack: [{model: arc, layers: [0, 2]}, {model: arc, layers: [1, 2]}]}
            result: grown
            """)
    )


SAME = {
    "nested": """\
        models: {a: ./a, b: ./b}
        result:
          stack:
            - model: &arc
                slerp: {models: [{linear: {models: [a, b], weights: [1, 3]}}, a], t: [0, 1]}
              layers: [0, 2]
            - {model: *arc, layers: [1, 2]}
        """,
    "long forms": """\
        models:
          a: {source: {path: ./a}}
          b: {source: {path: ./b, layers: model.layers}}
          both: {linear: {models: [a, b], weights: [0.5, 1.5], normalize: true}}
          arc: {slerp: {models: [both, a], t: [{value: [0, 1]}]}}
          grown: {stack: {slices: [{model: arc}, {model: arc, layers: [1, 2]}]}}
        result: grown
        """,
    "short forms": """\
        models: {a: {source: ./a}, b: b, arc: {slerp: {models: [
          {linear: {models: [a, b], weights: [1, 3]}}, a], t: [0, 1]}}, same: arc}
        result: {stack: [{model: same}, {model: arc, layers: [1, 2]}]}
        """,
}


@pytest.mark.parametrize("text", SAME.values(), ids=SAME.keys())
def test_same_expression_in_another_form_is_the_same_plan(
    text: str, plan_of: Plan, recipe: WriteRecipe
) -> None:
    other = api.plan(recipe(text))
    shown = [(tensor.spec, str(tensor.node)) for tensor in other.tensors]
    assert shown == [(tensor.spec, str(tensor.node)) for tensor in plan_of.tensors]
    assert other.layer_map == plan_of.layer_map
    assert other.config == plan_of.config


def test_depth_up_scale_is_a_stack(tmp_path: Path, recipe: WriteRecipe) -> None:
    tiny_llama(tmp_path / "a", 5)
    scaled = api.plan(recipe("models: {a: ./a}\nresult: {depth_up_scale: {model: a, remove: 2}}\n"))
    stacked = api.plan(
        recipe("""\
            models: {a: ./a}
            result: {stack: [{model: a, layers: [0, 3]}, {model: a, layers: [2, 5]}]}
            """)
    )
    assert scaled.tensors == stacked.tensors
    assert [str(origin) for origin in scaled.layer_map] == [f"a[{i}]" for i in (0, 1, 2, 2, 3, 4)]
    assert scaled.seams == (3,)


def test_weights_follow_their_schedule_from_the_first_tensor_to_the_last(
    tmp_path: Path, recipe: WriteRecipe
) -> None:
    for name in "ab":
        tiny_llama(tmp_path / name, 3)
    plan = api.plan(
        recipe("""\
            models: {a: ./a, b: ./b}
            result: {linear: {models: [a, b], weights: [[2, 4, 6], 1], normalize: false}}
            """)
    )
    found = {
        tensor.spec.name: tensor.node.weights
        for tensor in plan.tensors
        if isinstance(tensor.node, Sum)
    }
    assert found["model.embed_tokens.weight"] == (2, 1)
    for layer in range(3):
        assert found[f"model.layers.{layer}.mlp.up_proj.weight"] == (2 + 2 * layer, 1)
    assert found["model.norm.weight"] == found["lm_head.weight"] == (6, 1)


def test_model_whose_weight_is_zero_is_not_read(models: Path, recipe: WriteRecipe) -> None:
    plan = api.plan(
        recipe("""\
            models: {a: ./a, b: ./b}
            result: {linear: {models: [a, b], weights: [0, [{match: "*.mlp.*", value: 2}, 1]]}}
            """)
    )
    assert all(isinstance(tensor.node, Stored) for tensor in plan.tensors)
    assert {path.parent.name for path in plan.paths()} == {"b"}
