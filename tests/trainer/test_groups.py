"""Selectors: which parameters a group takes, and what each group means for the optimiser."""

from pathlib import Path

import pytest

from tensorsurgeon.errors import RecipeError
from tensorsurgeon.trainer.groups import (
    Parameter,
    Treatment,
    assign,
    first_trained,
    optimizer_groups,
)
from tensorsurgeon.trainer.layer_map import LayerOfMap
from tensorsurgeon.trainer.run_file import Run, parse_run
from tests.trainer.test_run_file import LEAST

DUS = tuple(
    LayerOfMap(sources=(("base", layer),), seam=index == 4)
    for index, layer in enumerate([0, 1, 2, 3, 2, 3, 4, 5])
)
EXPANDED = tuple(
    LayerOfMap(sources=(("base", layer),), new=new)
    for layer, new in [(0, False), (1, False), (1, True), (2, False), (3, False), (3, True)]
)


def run_with(extra: str) -> Run:
    return parse_run((LEAST + extra).encode(), Path("run.yaml"))


def parameters(depth: int, *, tied: bool = True) -> list[Parameter]:
    roles = {"embeddings", "head"} if tied else {"embeddings"}
    found = [
        Parameter(
            name="model.embed_tokens.weight",
            elements=64,
            dimensions=2,
            layer=None,
            roles=frozenset(roles),
        )
    ]
    for layer in range(depth):
        for name, dimensions in (("mlp.up_proj.weight", 2), ("input_layernorm.weight", 1)):
            full = f"model.layers.{layer}.{name}"
            found.append(Parameter(name=full, elements=16, dimensions=dimensions, layer=layer))
    found.append(Parameter(name="model.norm.weight", elements=4, dimensions=1, layer=None))
    if not tied:
        head = frozenset({"head"})
        found.append(
            Parameter(name="lm_head.weight", elements=64, dimensions=2, layer=None, roles=head)
        )
    return found


def groups_of(treatments: dict[str, Treatment]) -> dict[str, str]:
    return {name: treatment.group for name, treatment in treatments.items()}


def test_the_first_group_that_matches_has_the_parameter() -> None:
    extra = "groups: [{match: '*.layers.4.mlp.*', learning_rate: 3}, {match: '@seam'}]\n"
    found = groups_of(assign(run_with(extra), parameters(8), DUS))
    assert found["model.layers.4.mlp.up_proj.weight"] == "*.layers.4.mlp.*"
    assert found["model.layers.4.input_layernorm.weight"] == "@seam"
    assert found["model.layers.5.mlp.up_proj.weight"] == "(all others)"


def test_dus_trains_everything_and_the_seam_at_twice_the_rate() -> None:
    found = assign(run_with("preset: dus\n"), parameters(8), DUS)
    assert not any(treatment.frozen for treatment in found.values())
    fast = {name for name, treatment in found.items() if treatment.learning_rate == 2.0}
    assert fast == {p.name for p in parameters(8) if p.layer == 4}


def test_block_expansion_trains_the_new_layers_alone() -> None:
    found = assign(run_with("preset: block-expansion\n"), parameters(6), EXPANDED)
    trained = {p.layer for p in parameters(6) if not found[p.name].frozen}
    assert trained == {2, 5}


def test_groups_of_the_file_come_before_the_presets() -> None:
    extra = "preset: block-expansion\ngroups: [{match: '@head', learning_rate: 0.1}]\n"
    found = assign(run_with(extra), parameters(6, tied=False), EXPANDED)
    assert not found["lm_head.weight"].frozen
    assert found["model.embed_tokens.weight"].frozen


@pytest.mark.parametrize(
    ("selector", "layers"),
    [
        ("layers 2-3", {2, 3}),
        ("layer 5", {5}),
        ("layers 0 to 1", {0, 1}),
        ("@copied", set(range(8))),
    ],
)
def test_layers_are_chosen_by_range_and_origin(selector: str, layers: set[int]) -> None:
    found = assign(run_with(f"groups: [{{match: '{selector}'}}]\n"), parameters(8), DUS)
    assert {p.layer for p in parameters(8) if found[p.name].group == selector} == layers


def test_norms_and_biases_have_no_weight_decay_unless_a_group_says_so() -> None:
    found = assign(run_with(""), parameters(2), DUS[:2])
    assert found["model.layers.0.mlp.up_proj.weight"].weight_decay == 0.1
    assert found["model.layers.0.input_layernorm.weight"].weight_decay == 0.0
    found = assign(
        run_with("groups: [{match: '@norms', weight_decay: 0.5}]\n"), parameters(2), DUS[:2]
    )
    assert found["model.norm.weight"].weight_decay == 0.5


@pytest.mark.parametrize(
    ("name", "dimensions", "decayed"),
    [
        ("mlp.experts.gate_up_proj", 3, True),
        ("mlp.experts.gate_up_proj_bias", 2, False),
        ("mlp.router.bias", 1, False),
        ("self_attn.q_norm.weight", 2, False),
        ("ln_1.weight", 1, False),
        ("self_attn.relative_attention_bias.weight", 2, True),
    ],
)
def test_weight_decay_is_for_matrices_that_are_neither_biases_nor_norms(
    name: str, dimensions: int, decayed: bool
) -> None:
    full = f"model.layers.0.{name}"
    stacked = Parameter(name=full, elements=16, dimensions=dimensions, layer=0)
    found = assign(run_with(""), [*parameters(2), stacked], DUS[:2])
    assert (found[full].weight_decay == 0.1) == decayed


def test_norms_of_heads_that_are_one_matrix_are_norms() -> None:
    name = "model.layers.0.self_attn.q_norm.weight"
    stacked = Parameter(name=name, elements=16, dimensions=2, layer=0)
    found = assign(run_with("groups: [{match: '@norms'}]\n"), [*parameters(2), stacked], DUS[:2])
    assert found[name].group == "@norms"


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (
            "[{match: '*'}, {match: '@norms', weight_decay: 0.5}]",
            "run.yaml:7:32: groups.1.match: '@norms' matches only what groups before it took\n"
            "  fix: put it before '*', or remove it",
        ),
        ("[{match: '@seam'}, {match: 'layer 4'}]", "groups.1.match: 'layer 4' matches only"),
        ("[{match: '@norms'}, {match: '@norms'}]", "groups.1.match: '@norms' matches only"),
        ("[{match: '@embeddings'}, {match: '@head'}]", "groups.1.match: '@head' matches only"),
    ],
)
def test_a_group_that_gets_nothing_since_others_took_it_is_refused(groups: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        assign(run_with(f"groups: {groups}\n"), parameters(8), DUS)
    assert told in str(caught.value)


def test_groups_of_the_file_may_take_all_that_a_preset_would() -> None:
    extra = "preset: dus\ngroups: [{match: '@seam', learning_rate: 3}]\n"
    found = assign(run_with(extra), parameters(8), DUS)
    assert {t.learning_rate for t in found.values()} == {1.0, 3.0}


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (
            "groups: [{match: '@new'}]\n",
            "run.yaml:7:18: groups.0.match: '@new' matches no parameter",
        ),
        ("groups: [{match: 'model.layer.*'}]\n", "matches no parameter"),
        ("groups: [{match: '@semas'}]\n", "did you mean '@seam'"),
        ("groups: [{match: 'layers 6-9'}]\n", "the model has layers 0 to 7"),
        ("groups: [{match: '*', frozen: true}]\n", "there is nothing to train"),
        ("groups: [{match: '*', learning_rate: 0}]\n", "there is nothing to train"),
        ("preset: block-expansion\n", "run.yaml:7:9: preset: '@new' matches no parameter"),
    ],
)
def test_groups_that_mean_nothing_are_refused(extra: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        assign(run_with(extra), parameters(8), DUS)
    assert told in str(caught.value)


def test_a_frozen_prefix_ends_where_the_first_trained_layer_begins() -> None:
    run = run_with("groups: [{match: 'layers 3-4'}, {match: '*', frozen: true}]\n")
    found = assign(run, parameters(8), DUS)
    assert first_trained(parameters(8), found, 8) == 3


def test_trained_embeddings_leave_no_frozen_prefix() -> None:
    run = run_with("groups: [{match: '@embeddings'}, {match: '*', frozen: true}]\n")
    assert first_trained(parameters(8), assign(run, parameters(8), DUS), 8) == 0


def test_trained_positions_or_a_norm_of_embeddings_leave_no_frozen_prefix() -> None:
    others = ["model.embed_positions.weight", "model.embed_norm.weight", "model.embed.norm.weight"]
    for name in others:
        run = run_with(f"groups: [{{match: '{name}'}}, {{match: '*', frozen: true}}]\n")
        other = Parameter(name=name, elements=8, dimensions=2, layer=None)
        named = [*parameters(8), other]
        assert first_trained(named, assign(run, named, DUS), 8) == 0


def test_a_trained_last_norm_keeps_the_frozen_prefix() -> None:
    extra = "groups: [{match: model.norm.weight}, {match: layer 6}, {match: '*', frozen: true}]\n"
    assert first_trained(parameters(8), assign(run_with(extra), parameters(8), DUS), 8) == 6


def test_a_trained_head_alone_needs_no_layers_gradients() -> None:
    run = run_with("groups: [{match: '@head'}, {match: '*', frozen: true}]\n")
    named = parameters(8, tied=False)
    assert first_trained(named, assign(run, named, DUS), 8) == 8


def test_the_optimizer_gets_each_trained_parameter_once_with_its_own_settings() -> None:
    run = run_with("preset: dus\ngroups: [{match: '@embeddings', frozen: true}]\n")
    named = parameters(8)
    groups = optimizer_groups([(p.name, p.name) for p in named], assign(run, named, DUS))
    given = [name for group in groups for name in group["params"]]
    assert sorted(given) == sorted(p.name for p in named if p.layer is not None or "norm" in p.name)
    assert {(group["factor"], group["weight_decay"]) for group in groups} == {
        (1.0, 0.1),
        (1.0, 0.0),
        (2.0, 0.1),
        (2.0, 0.0),
    }
