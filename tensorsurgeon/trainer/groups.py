"""Which parameters are trained, and how: selectors over names, layers and the layer map."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from fnmatch import fnmatchcase
from typing import Any

from tensorsurgeon.errors import Problem, RecipeError, did_you_mean
from tensorsurgeon.trainer.layer_map import LayerOfMap
from tensorsurgeon.trainer.run_file import Group, Run

PRESETS: Mapping[str, tuple[Group, ...]] = {
    "dus": (Group(match="@seam", learning_rate=2.0),),
    "block-expansion": (Group(match="@new"), Group(match="*", frozen=True)),
}
"""Depth up-scaling trains all, the layers at a seam faster (SOLAR 10.7B, arXiv:2312.15166);
block expansion trains the added layers alone (LLaMA Pro, arXiv:2401.02415)."""

SELECTORS = ("@new", "@copied", "@seam", "@embeddings", "@head", "@norms")

FINAL_NORMS = frozenset(
    {"final_layer_norm", "final_layernorm", "final_norm", "layer_norm", "ln_f", "ln_out"}
    | {"norm", "norm_f", "out_norm"}
)
"""What transformers' models call the norm after their last layer, beside the list of layers."""

_NORM = re.compile(r"norm|(^|_)ln(_|\d|$)", re.IGNORECASE)
_LAYERS = re.compile(r"layers? +(\d+)(?: *(?:-|to) *(\d+))?")


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter as the selectors see it.

    Attributes:
        name: in the model; where transformers renames on loading, the checkpoint has another.
        elements: how many.
        dimensions: of its shape.
        layer: which it is in; None outside the layers.
        roles: of `embeddings` and `head`, both where they are tied.
    """

    name: str
    elements: int
    dimensions: int
    layer: int | None
    roles: frozenset[str] = frozenset()

    @property
    def module(self) -> str:
        """The name of the module that it is a parameter of."""
        return self.name.rpartition(".")[0]

    @property
    def is_bias(self) -> bool:
        """Whether it is added; the biases of experts that are one parameter are a matrix."""
        return self.name.endswith("bias")

    @property
    def is_norm(self) -> bool:
        """Whether it scales what is normed; the norms of heads that are one are a matrix."""
        named = _NORM.search(self.module.rpartition(".")[2]) is not None
        return self.name.endswith("weight") and (self.dimensions == 1 or named)

    @property
    def decays(self) -> bool:
        """Whether weight decay is for it: it is a matrix, and neither of a norm nor a bias."""
        return self.dimensions > 1 and not self.is_norm and not self.is_bias


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """How the optimiser treats parameters.

    Attributes:
        group: what chose it, for people.
        learning_rate: factor of the run's learning rate.
        weight_decay: of AdamW.
        frozen: not trained.
    """

    group: str
    learning_rate: float
    weight_decay: float
    frozen: bool


def assign(
    run: Run, parameters: Sequence[Parameter], layer_map: Sequence[LayerOfMap]
) -> dict[str, Treatment]:
    """The treatment of every parameter: by the first group that matches, the preset's come last.

    Args:
        run: its groups, preset and optimizer.
        parameters: of the model.
        layer_map: where each layer came from.

    Raises:
        RecipeError: a group that takes nothing, or is no selector; nothing to train.
    """
    chosen = _choose(run, parameters, layer_map)
    decay = run.settings.optimizer.weight_decay
    made = {p.name: _treatment(p, chosen.get(p.name), decay) for p in parameters}
    if all(treatment.frozen for treatment in made.values()):
        fix = "leave something unfrozen, with a learning rate above 0"
        raise run.error(["groups"], "everything is frozen: there is nothing to train", fix)
    return made


def _choose(
    run: Run, parameters: Sequence[Parameter], layer_map: Sequence[LayerOfMap]
) -> dict[str, Group]:
    """The group of each parameter that has one.

    A preset's group may well come to nothing, where the file's own groups take its parameters.

    Raises:
        RecipeError: a group takes nothing, or is no selector.
    """
    given = run.settings.groups
    preset = PRESETS[run.settings.preset] if run.settings.preset else ()
    problems: list[Problem] = []
    chosen: dict[str, Group] = {}
    for index, group in enumerate((*given, *preset)):
        place: list[str | int] = ["groups", index, "match"] if index < len(given) else ["preset"]
        try:
            matched = [p for p in parameters if _matches(group.match, p, layer_map)]
        except ValueError as error:
            fix = did_you_mean(group.match, SELECTORS) if group.match.startswith("@") else ""
            problems.append(run.problem(place, str(error), fix))
            continue
        if not matched:
            what = f"'{group.match}' matches no parameter"
            fix = _what_there_is(group.match, parameters)
            problems.append(run.problem(place, what, fix))
        elif index < len(given) and all(p.name in chosen for p in matched):
            what = f"'{group.match}' matches only what groups before it took"
            fix = f"put it before '{chosen[matched[0].name].match}', or remove it"
            problems.append(run.problem(place, what, fix))
        for parameter in matched:
            chosen.setdefault(parameter.name, group)
    if problems:
        raise RecipeError.of(problems)
    return chosen


def _treatment(parameter: Parameter, group: Group | None, decay: float) -> Treatment:
    if group is None:
        group = Group(match="(all others)")
    own = decay if parameter.decays else 0.0
    return Treatment(
        group=group.match,
        learning_rate=group.learning_rate,
        weight_decay=own if group.weight_decay is None else group.weight_decay,
        frozen=group.frozen or group.learning_rate == 0,
    )


def _matches(selector: str, parameter: Parameter, layer_map: Sequence[LayerOfMap]) -> bool:
    """Whether a selector takes a parameter.

    Raises:
        ValueError: it is none; or names layers that the model does not have.
    """
    origin = None if parameter.layer is None else layer_map[parameter.layer]
    known: dict[str, bool] = {
        "@new": origin is not None and origin.new,
        "@copied": origin is not None and not origin.new,
        "@seam": origin is not None and origin.seam,
        "@embeddings": "embeddings" in parameter.roles,
        "@head": "head" in parameter.roles,
        "@norms": parameter.is_norm,
    }
    if selector in known:
        return known[selector]
    if selector.startswith("@"):
        raise ValueError(f"there is no selector '{selector}'")
    if found := _LAYERS.fullmatch(selector):
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last < len(layer_map):
            raise ValueError(f"'{selector}': the model has layers 0 to {len(layer_map) - 1}")
        return parameter.layer is not None and first <= parameter.layer <= last
    return fnmatchcase(parameter.name, selector)


def _what_there_is(selector: str, parameters: Sequence[Parameter]) -> str:
    """What could be meant by a selector that matches nothing."""
    if selector in ("@new", "@seam"):
        kind = "added" if selector == "@new" else "seam"
        told = "the checkpoint's manifest tells of no"
        return f"{told} {kind} layer; remove the group, or the preset"
    if selector.startswith("@"):
        return "the model has none; remove the group"
    like = SequenceMatcher(b=selector, autojunk=False)

    def alike(parameter: Parameter) -> int:
        like.set_seq1(parameter.name)
        return like.find_longest_match().size

    return f"a glob is of the whole name, such as '{max(parameters, key=alike).name}'"


def first_trained(
    parameters: Sequence[Parameter], treatments: Mapping[str, Treatment], depth: int
) -> int:
    """The first layer that needs gradients: those before it run without.

    0 where anything is trained that may come before the layers, as embeddings of tokens and
    positions and their norm do; the depth where only the last norm and the head learn.
    """
    trained = [p for p in parameters if not treatments[p.name].frozen]
    last = _modules_after_layers(parameters)
    if any(p.layer is None and p.module not in last for p in trained):
        return 0
    layers = [p.layer for p in trained if p.layer is not None]
    return min(layers, default=depth)


def _modules_after_layers(parameters: Sequence[Parameter]) -> set[str]:
    """The head, unless it is the embeddings, and the last norm.

    By their names: the order of parameters tells nothing, as OPT's last norm is before its layers
    in it, and BART's norm of embeddings behind them.
    """
    found = {p.module for p in parameters if p.roles == {"head"}}
    inside = next((p for p in parameters if p.layer is not None), None)
    if inside is not None:
        layers = inside.name.partition(f".{inside.layer}.")[0]
        body = layers[: layers.rfind(".") + 1]
        found |= {body + name for name in FINAL_NORMS}
    return found


def optimizer_groups(
    named: Sequence[tuple[str, Any]], treatments: Mapping[str, Treatment]
) -> list[dict[str, Any]]:
    """The optimiser's parameter groups: those treated alike together, in the model's order.

    Args:
        named: names and parameters.
        treatments: of each; what is frozen is left out.
    """
    together: dict[tuple[float, float], list[Any]] = {}
    for name, parameter in named:
        treatment = treatments[name]
        if not treatment.frozen:
            key = treatment.learning_rate, treatment.weight_decay
            together.setdefault(key, []).append(parameter)
    return [
        {"params": params, "weight_decay": decay, "factor": factor}
        for (factor, decay), params in together.items()
    ]
