"""Models made of other models' layers: every tensor accounted for, every mismatch named."""

from collections.abc import Sequence
from dataclasses import replace

from tensorsurgeon.arch import LayerSource, config_with_layers
from tensorsurgeon.errors import ArchitectureError
from tensorsurgeon.operators import ChosenLayer, LayerOperator
from tensorsurgeon.plan.model import Model
from tensorsurgeon.plan.nodes import Node, Zeros
from tensorsurgeon.recipe.schedule import glob


def stack_layers(operator: LayerOperator, operands: Sequence[Model]) -> Model:
    """The model a layer operator makes of its operands.

    Tensors before the layers are those of the model the first layer comes from, tensors after
    them those of the model of the last.

    Raises:
        RecipeError: from the operator, about its layers.
        ArchitectureError: operands that do not fit upon each other.
    """
    chosen = operator.layers([operand.architecture.depth for operand in operands])
    _check_fit(operands, chosen)
    first, last = operands[chosen[0].operand], operands[chosen[-1].operand]
    depth = len(chosen)
    architecture = replace(first.architecture, depth=depth)
    layers = [_by_layer(operand) for operand in operands]
    tensors = _outside(first, "before")
    for layer, choice in enumerate(chosen):
        inside = layers[choice.operand][choice.layer]
        if choice.zeroed:
            inside = _zeroed(operator, operands[choice.operand], choice.layer, inside)
        tensors |= {architecture.join(layer, name): node for name, node in inside.items()}
    tensors |= _outside(last, "after")
    shapes = [{name: node.shape for name, node in op.tensors.items()} for op in operands]
    config = config_with_layers(
        first.architecture,
        first.config,
        [
            LayerSource(
                architecture=operands[choice.operand].architecture,
                config=operands[choice.operand].config,
                layer=choice.layer,
                tensors=shapes[choice.operand],
            )
            for choice in chosen
        ],
    )
    return Model(
        label=operator.operator,
        architecture=architecture,
        config=config,
        tensors=tensors,
        origins=tuple(
            replace(operands[choice.operand].origins[choice.layer], new=True)
            if choice.zeroed
            else operands[choice.operand].origins[choice.layer]
            for choice in chosen
        ),
        donor=first.donor,
    )


def _outside(model: Model, side: str) -> dict[str, Node]:
    split, where = model.architecture.split, model.architecture.side
    return {
        name: node
        for name, node in model.tensors.items()
        if split(name) is None and where(name) == side
    }


def _by_layer(model: Model) -> list[dict[str, Node]]:
    """Each layer's nodes by their names inside it."""
    layers: list[dict[str, Node]] = [{} for _ in range(model.architecture.depth)]
    for name, node in model.tensors.items():
        if found := model.architecture.split(name):
            layers[found[0]][found[1]] = node
    return layers


def _zeroed(
    operator: LayerOperator, model: Model, layer: int, inside: dict[str, Node]
) -> dict[str, Node]:
    """A layer's nodes, with zeros for what it writes to the residual stream."""
    own = operator.zero_patterns()
    patterns = own or model.architecture.family.writes_residual
    hits = {name for name in inside if any(glob(pattern).match(name) for pattern in patterns)}
    kinds = _inside_shapes(model)
    idle = [pattern for pattern in own if not any(glob(pattern).match(kind) for kind in kinds)]
    if idle or not hits:
        where = "the layers" if idle else f"layer {layer}"
        family = model.architecture.model_type or "this family"
        raise ArchitectureError(
            f"'{operator.operator}': it is not known which tensors of {family} to zero"
            if not patterns
            else f"'{operator.operator}': nothing in {where} of '{model.label}' "
            f"matches {', '.join(idle or patterns)}",
            fix="name them with 'zero', as [self_attn.o_proj.*, mlp.down_proj.*]; in a family that "
            "normalises after the sum no zeroing makes a layer an identity",
        )
    return {
        name: Zeros(dtype=node.dtype, shape=node.shape) if name in hits else node
        for name, node in inside.items()
    }


def _check_fit(operands: Sequence[Model], chosen: Sequence[ChosenLayer]) -> None:
    first, last = operands[chosen[0].operand], operands[chosen[-1].operand]
    inside, outside = _inside_shapes(first), _outside_shapes(first)
    for other in operands:
        ours, theirs = first.architecture, other.architecture
        if ours.model_type != theirs.model_type or ours.prefix != theirs.prefix:
            raise ArchitectureError(
                f"layers of '{other.label}' ({theirs.model_type}, {theirs.prefix}) do not fit "
                f"'{first.label}' ({ours.model_type}, {ours.prefix})",
                fix="models that are stacked are of one family",
            )
        _check_shapes(first, inside, other, _inside_shapes(other))
    _check_shapes(first, outside, last, _outside_shapes(last))
    lacking = [n for n in _outside(first, "after") if n not in last.tensors]
    if lacking:
        raise ArchitectureError(
            f"'{lacking[0]}' is in '{first.label}' and not in '{last.label}', which comes last",
            fix="a model that ties its head to its embedding cannot lie upon one that does not",
        )


_KindShapes = dict[str, tuple[tuple[int, ...], str]]
"""A shape, and the name of a tensor that has it, by kind of tensor."""


def _check_shapes(first: Model, shapes: _KindShapes, other: Model, others: _KindShapes) -> None:
    for kind, (shape, name) in others.items():
        if kind in shapes and shapes[kind][0] != shape:
            vocabulary = kind == name and shapes[kind][0][1:] == shape[1:]
            raise ArchitectureError(
                f"'{name}' is {list(shape)} in '{other.label}', but "
                f"'{shapes[kind][1]}' is {list(shapes[kind][0])} in '{first.label}'"
                + (": their vocabularies differ in size" if vocabulary else ""),
                fix="bring them to one vocabulary with 'output: vocabulary'"
                if vocabulary
                else "models that are stacked have layers of one size",
            )


def _outside_shapes(model: Model) -> _KindShapes:
    """The shapes of the tensors outside the layers, each a kind of its own."""
    split = model.architecture.split
    return {n: (node.shape, n) for n, node in model.tensors.items() if split(n) is None}


def _inside_shapes(model: Model) -> _KindShapes:
    """The shape of each kind of layer tensor, from the first layer that has it."""
    found: _KindShapes = {}
    for name, node in model.tensors.items():
        if split := model.architecture.split(name):
            found.setdefault(split[1], (node.shape, name))
    return found
