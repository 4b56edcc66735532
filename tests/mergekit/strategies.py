"""mergekit's recipes at random, as far as mergekit takes them and lets no setting fall away."""

from typing import Any

from hypothesis import strategies as st

NUMBERS = st.one_of(st.sampled_from([0, 1, 0.5]), st.floats(0, 1))
VALUES = st.one_of(NUMBERS, st.lists(NUMBERS, min_size=1, max_size=4))
FILTERS = ("self_attn", "mlp", "norm", "q_proj", "lm_head", "down_proj.weight", "layers.2.")
LAYERED = ("layers.2.mlp", "layers.3", "layers.1.", "layers.4.self_attn")
"""Filters, none of which takes all that one after it does where they are in this order."""


@st.composite
def settings_of(draw: st.DrawFn, filters: tuple[str, ...]) -> Any:
    """A setting: a value, or conditions."""
    kept = draw(st.lists(st.sampled_from(filters), unique=True, max_size=3))
    reached = [one for i, one in enumerate(kept) if not any(other in one for other in kept[:i])]
    conditions: list[Any] = [{"filter": one, "value": draw(VALUES)} for one in reached]
    if not conditions or draw(st.booleans()):
        if not conditions and draw(st.booleans()):
            return draw(VALUES)
        conditions.append({"value": draw(VALUES)} | draw(st.sampled_from([{}, {"filter": "*"}])))
    return conditions


@st.composite
def complete(draw: st.DrawFn, filters: tuple[str, ...]) -> Any:
    """A setting that gives every tensor a value."""
    found = draw(settings_of(filters))
    if not isinstance(found, list) or not isinstance(found[0], dict):
        return found
    filtered = [one for one in found if one.get("filter", "*") != "*"]
    return [*filtered, {"value": draw(VALUES)}]


@st.composite
def parameters(draw: st.DrawFn, names: tuple[str, ...], filters: tuple[str, ...]) -> Any:
    """Some parameters at one level."""
    chosen = draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    return {name: draw(settings_of(filters)) for name in chosen}


PARAMETERS = {
    "linear": (("weight",), ()),
    "slerp": ((), ("t",)),
    "ties": (("weight", "density"), ("lambda",)),
    "della": (("weight", "density", "epsilon"), ("lambda",)),
    "nuslerp": (("weight",), ()),
    "passthrough": (("scale",), ()),
}
"""Of each model, and of the merge."""


@st.composite
def recipes(draw: st.DrawFn, models: dict[str, int]) -> dict[str, Any]:
    """A recipe over models of so many layers."""
    method = draw(st.sampled_from(sorted(PARAMETERS)))
    each, merged = PARAMETERS[method]
    names = sorted(models)
    count = {"slerp": 2, "passthrough": 1, "nuslerp": 2}.get(method) or draw(st.integers(2, 3))
    slices = draw(st.integers(0, 3))
    based = method in ("slerp", "ties", "della")
    recipe: dict[str, Any] = {"merge_method": method}
    if not slices:
        same = [name for name in names if models[name] == models[names[0]]]
        chosen = draw(st.permutations(same))[:count]
        inputs = [draw(one_model(name, each)) for name in chosen]
        if based:
            recipe["base_model"] = chosen[0]
            inputs[0]["parameters"] = None
        recipe["models"] = draw(st.permutations(inputs))
        everywhere = FILTERS + LAYERED
    else:
        recipe["slices"] = [
            draw(one_slice(models, names[:count], each, merged, based=based)) for _ in range(slices)
        ]
        if based:
            recipe["base_model"] = names[0]
        everywhere = FILTERS[:-1]
    recipe["parameters"] = draw(parameters(each + merged, everywhere))
    for name in ("weight", "t"):
        if name in each + merged:
            recipe["parameters"][name] = draw(complete(everywhere))
    return recipe


@st.composite
def one_model(draw: st.DrawFn, name: str, each: tuple[str, ...]) -> dict[str, Any]:
    """A model with parameters of its own."""
    return {"model": name, "parameters": draw(parameters(each, FILTERS + LAYERED))}


@st.composite
def one_slice(
    draw: st.DrawFn,
    models: dict[str, int],
    names: list[str],
    each: tuple[str, ...],
    merged: tuple[str, ...],
    *,
    based: bool,
) -> dict[str, Any]:
    """Layers of some models, each from another layer on."""
    count = draw(st.integers(1, min(models[name] for name in names)))
    sources: list[dict[str, Any]] = []
    for name in names:
        start = draw(st.integers(0, models[name] - count))
        inside = [f for f in FILTERS + LAYERED if names_a_layer(f, start, count)]
        own = () if based and name == names[0] else each
        settings = draw(parameters(own, tuple(inside)))
        sources.append(
            {"model": name, "layer_range": [start, start + count], "parameters": settings}
        )
    of_slice = draw(parameters(each + merged, FILTERS[:-1]))
    return {"sources": draw(st.permutations(sources)), "parameters": of_slice}


def names_a_layer(filter_: str, start: int, count: int) -> bool:
    """Whether a filter names a layer of these, or none at all."""
    number = "".join(filter(str.isdigit, filter_))
    return not number or start <= int(number) < start + count
