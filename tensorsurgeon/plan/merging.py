"""Models made by merging models tensor by tensor: the same names, shapes and depth, or an error."""

from collections.abc import Iterable, Sequence
from typing import Any

from tensorsurgeon.errors import ArchitectureError, PlanError
from tensorsurgeon.operators import GeometricOperator, MergeOperator, StreamedOperator, SumOperator
from tensorsurgeon.operators.families import Parameters
from tensorsurgeon.plan.model import Model
from tensorsurgeon.plan.nodes import Geometric, Node, Streamed, Sum
from tensorsurgeon.recipe import Place
from tensorsurgeon.specs import LayerOrigin


def merge_models(operator: MergeOperator, operands: Sequence[Model], seed: int) -> Model:
    """The model a merge operator makes of its operands; config and layout are the first's.

    Args:
        operator: the operator.
        operands: its models, the base first.
        seed: of what it draws at random.

    Raises:
        ArchitectureError: operands that differ in family, depth, names or shapes.
        PlanError: a tensor that no method can compute on.
        RecipeError: from the operator, about its parameters at a tensor.
    """
    first = operands[0]
    for operand in operands:
        _check_unquantized(operator, operand)
        _check_alike(first, operand)
    return Model(
        label=operator.operator,
        architecture=first.architecture,
        config=first.config,
        tensors={
            name: _merge_tensor(
                operator, first.place(name), seed, [m.tensors[name] for m in operands]
            )
            for name in first.tensors
        },
        origins=tuple(
            LayerOrigin(
                sources=tuple(
                    dict.fromkeys(s for model in operands for s in model.origins[layer].sources)
                ),
                new=all(model.origins[layer].new for model in operands),
            )
            for layer in range(first.architecture.depth)
        ),
        donor=first.donor,
    )


def config_differences(operands: Sequence[Model]) -> list[str]:
    """Settings in which the configs of several models differ, for the plan's notes."""
    first = operands[0]
    found = []
    for other in operands[1:]:
        depth_keys = {*first.architecture.depth_keys, *other.architecture.depth_keys}
        keys = (first.config.keys() | other.config.keys()) - _NAMES_ONLY - depth_keys
        for key in sorted(keys):
            ours, theirs = first.config.get(key), other.config.get(key)
            if ours != theirs:
                found.append(
                    f"config.json: {key} is {ours!r:.60} in '{first.label}' and {theirs!r:.60} in "
                    f"'{other.label}'; the first is written"
                )
    return found


_NAMES_ONLY = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"}
"""Config keys that say nothing about what the model computes."""


def _merge_tensor(operator: MergeOperator, place: Place, seed: int, inputs: list[Node]) -> Node:
    operator = operator.for_tensor(place, inputs[0].shape)
    parameters = operator.parameters_at(place)
    if operator.is_idempotent() and all(node == inputs[0] for node in inputs):
        return inputs[0]
    values: dict[str, Any] = dict(parameters)
    if isinstance(operator, StreamedOperator):
        return _streamed(operator, place.name, seed, parameters, inputs)
    if isinstance(operator, SumOperator):
        known = operator.coefficients(**values)
    elif isinstance(operator, GeometricOperator):
        foregone = operator.foregone(**values)
        if foregone is None:
            _check_computable(operator, place.name, inputs)
            return Geometric(operator=operator, parameters=parameters, inputs=tuple(inputs))
        known = foregone
    else:
        raise AssertionError(f"{operator.operator} belongs to no family")
    weights = known.of_inputs(based=operator.origin is not None)
    terms = [(weight, node) for weight, node in zip(weights, inputs, strict=True) if weight]
    if len(terms) == 1 and terms[0][0] == 1.0:
        return terms[0][1]
    _check_computable(operator, place.name, inputs)
    terms = terms or [(0.0, inputs[0])]
    return Sum(
        operator=operator.operator,
        inputs=tuple(node for _, node in terms),
        weights=tuple(weight for weight, _ in terms),
        based=operator.origin is not None and terms[0][1] is inputs[0],
    )


def _streamed(
    operator: StreamedOperator, name: str, seed: int, parameters: Parameters, inputs: list[Node]
) -> Node:
    operator.check(**dict(parameters))
    kept = operator.kept(**dict(parameters))
    if kept is not None:
        base, *models = inputs
        inputs = [base, *(models[i] for i in kept)]
        parameters = tuple(
            (key, tuple(value[i] for i in kept) if isinstance(value, tuple) else value)
            for key, value in parameters
        )
        if not kept:
            return base
    _check_computable(operator, name, inputs)
    return Streamed(
        operator=operator, parameters=parameters, inputs=tuple(inputs), name=name, seed=seed
    )


def _check_computable(operator: MergeOperator, name: str, inputs: Iterable[Node]) -> None:
    for node in inputs:
        if not node.dtype.computable:
            raise PlanError(
                f"'{operator.operator}' cannot compute on tensor '{name}' of dtype "
                f"{node.dtype.value}",
                fix="give it to one model by a rule whose weights for it are 1 and 0, "
                f'as {{match: "{name}", value: 0}}',
            )


def _check_unquantized(operator: MergeOperator, model: Model) -> None:
    if model.is_quantized:
        raise ArchitectureError(
            f"'{model.label}' is quantized: its stored numbers mean nothing without their scales, "
            f"so '{operator.operator}' cannot compute on them",
            fix="merge the unquantized model, and quantize the result",
        )


def _check_alike(first: Model, other: Model) -> None:
    ours, theirs = first.architecture, other.architecture
    if ours.model_type != theirs.model_type:
        raise ArchitectureError(
            f"'{first.label}' is of family {ours.model_type or 'unknown'}, "
            f"'{other.label}' of {theirs.model_type or 'unknown'}",
            fix="models that are merged are of one family",
        )
    if ours.depth != theirs.depth:
        raise ArchitectureError(
            f"'{first.label}' has {ours.depth} layers, '{other.label}' has {theirs.depth}",
            fix="bring them to one depth with 'stack' first",
        )
    for here, there in ((first, other), (other, first)):
        missing = next((name for name in here.tensors if name not in there.tensors), None)
        if missing is not None:
            raise ArchitectureError(
                f"tensor '{missing}' is in '{here.label}' and not in '{there.label}'",
                fix=_fix_for_missing(missing),
            )
    for name, node in first.tensors.items():
        shape = other.tensors[name].shape
        if shape == node.shape:
            continue
        vocabulary = node.shape[1:] == shape[1:] and len(shape) == 2 and ours.split(name) is None
        raise ArchitectureError(
            f"tensor '{name}' is {list(node.shape)} in '{first.label}' and {list(shape)} in "
            f"'{other.label}'" + (": their vocabularies differ in size" if vocabulary else ""),
            fix="merge models with one vocabulary, or bring them to one, as with output: "
            "{vocabulary: {source: union}}"
            if vocabulary
            else "",
        )


def _fix_for_missing(name: str) -> str:
    if "lm_head" in name or "embed_out" in name:
        return "one model ties its output head to the embedding, the other has a head of its own"
    return ""
