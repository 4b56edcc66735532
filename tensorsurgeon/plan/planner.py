"""From a recipe and its opened sources to a `Plan`."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tensorsurgeon.arch import config_with_weights, without_code
from tensorsurgeon.checkpoint import Checkpoint
from tensorsurgeon.checkpoint.layout import lay_out
from tensorsurgeon.documents.portable import is_local, portable_path
from tensorsurgeon.errors import PlanError, Problem, RecipeError, TensorSurgeonError
from tensorsurgeon.operators import LayerOperator, Lora, MergeOperator
from tensorsurgeon.plan.adapters import adapt_model
from tensorsurgeon.plan.merging import config_differences, merge_models
from tensorsurgeon.plan.model import Model, source_model
from tensorsurgeon.plan.nodes import Node, Stored, Sum, Zeros
from tensorsurgeon.plan.outcome import OutputTensor, Plan
from tensorsurgeon.plan.sidecars import CODE_DROPPED, SidecarFile, sidecars_of
from tensorsurgeon.plan.stacking import stack_layers
from tensorsurgeon.recipe import Operator, Recipe, Reference, Source
from tensorsurgeon.recipe.portable import portable_text
from tensorsurgeon.specs import TORCH_NAMES, DType, TensorSpec


def make_plan(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    adapters: Mapping[str, Checkpoint],
    *,
    name: str,
    text: str,
    copy_code: bool = False,
) -> Plan:
    """Work out a recipe. No tensor byte is read.

    Args:
        recipe: the recipe.
        checkpoints: each source's opened checkpoint, by the source's `path` in the recipe.
        adapters: each adapter's, by the adapter's path there.
        name: what to call the recipe in errors.
        text: the recipe's file.
        copy_code: whether Python files go along, and configs go on naming their classes.

    Raises:
        TensorSurgeonError: whatever is wrong, as the class of that mistake.
    """
    return _Planner(recipe, checkpoints, adapters, name, text, copy_code).plan()


class _Planner:
    def __init__(
        self,
        recipe: Recipe,
        checkpoints: Mapping[str, Checkpoint],
        adapters: Mapping[str, Checkpoint],
        name: str,
        text: str,
        copy_code: bool,
    ) -> None:
        self.recipe = recipe
        self.checkpoints = checkpoints
        self.adapters = adapters
        self.name = name
        self.text = text
        self.copy_code = copy_code
        self.notes: list[str] = []
        self.problems: list[Problem] = []
        self._models: dict[str, Model] = {}
        self._folders: dict[str, Checkpoint] = {}
        self._depths: dict[str, int] = {}
        self._inline: dict[str, str] = {}

    def plan(self) -> Plan:
        result = self._model(self.recipe.result, "result")
        nodes = result.tensors
        if result.is_quantized and self.recipe.output.dtype:
            raise PlanError(
                "output: dtype cannot be applied to a quantized model, whose stored numbers mean "
                "nothing without their scales",
                where=self.name,
                fix="leave dtype out, or convert the unquantized model",
            )
        dtypes = {name: self._written_dtype(node) for name, node in nodes.items()}
        shards = lay_out(
            [
                TensorSpec(name=name, dtype=dtypes[name], shape=node.shape)
                for name, node in nodes.items()
            ],
            self.recipe.output.max_shard_size,
        )
        sidecars = self._sidecars(result)  # may open a source that nothing else reads
        config = self._config(result, dtypes)
        if self.problems:
            raise RecipeError.of(self.problems)
        return Plan(
            recipe=self.name,
            recipe_text=self.text,
            shown_recipe=portable_text(self.text),
            seed=self.recipe.seed,
            rounding=self.recipe.output.rounding,
            sources={name: checkpoint.path for name, checkpoint in self._folders.items()},
            depths=self._depths,
            repos={c.path: c.repo for c in self._folders.values() if c.repo is not None},
            identities={
                path: identity
                for checkpoint in self._folders.values()
                for path, identity in checkpoint.identities.items()
            },
            tensors=tuple(
                OutputTensor(spec=spec, node=nodes[spec.name], shard=shard.name, offset=offset)
                for shard in shards
                for spec, offset in zip(shard.specs, shard.offsets, strict=True)
            ),
            shards=shards,
            config=config,
            sidecars=sidecars,
            layer_map=result.origins,
            notes=tuple(dict.fromkeys(self.notes)),
        )

    def _model(self, expression: Operator | Reference, label: str) -> Model:
        if isinstance(expression, Reference):
            name = expression.name
            if name not in self._models:
                self._models[name] = self._model(self.recipe.models[name], name)
            return self._models[name]
        if isinstance(expression, Source):
            checkpoint = self.checkpoints[expression.path]
            label = self._inline_label(expression.path) if label in ("", "result") else label
            if label not in self._folders:
                self.notes += [f"'{label}': {note}" for note in checkpoint.notes]
            model = source_model(label, checkpoint, expression.layers)
            self._folders[label], self._depths[label] = checkpoint, model.architecture.depth
            return model
        operands = [self._model(operand, "") for operand in expression.operands()]
        try:
            return self._apply(expression, operands)
        except TensorSurgeonError as error:
            raise self._located(error, expression) from None

    def _inline_label(self, path: str) -> str:
        """What to call a source that stands in an expression: its path, unless that is local."""
        if path not in self._inline:
            taken = {*self.recipe.models, *self._inline.values()}
            self._inline[path] = portable_path(path, taken) if is_local(path) else path
        return self._inline[path]

    def _apply(self, operator: Operator, operands: list[Model]) -> Model:
        self.notes.extend(config_differences(operands))
        if isinstance(operator, LayerOperator):
            return stack_layers(operator, operands)
        if isinstance(operator, MergeOperator):
            model = merge_models(operator, operands, self.recipe.seed)
            self._check_rules(operator, model)
            return model
        if isinstance(operator, Lora):
            model = self._adapted(operator, operands[0])
            self._check_rules(operator, model)
            return model
        raise AssertionError(f"{operator.operator} belongs to no family")

    def _adapted(self, operator: Lora, base: Model) -> Model:
        checkpoint = self.adapters[operator.adapter]
        label = f"adapter {self._inline_label(operator.adapter)}"
        if label not in self._folders:
            self.notes += [f"'{label}': {note}" for note in checkpoint.notes]
        self._folders[label] = checkpoint
        model = adapt_model(operator, base, checkpoint, label)
        self.notes += [
            f"'{label}': {name}, which was the embedding, becomes a tensor of its own"
            for name in model.tensors.keys() - base.tensors.keys()
        ]
        return model

    def _located(self, error: TensorSurgeonError, operator: Operator) -> TensorSurgeonError:
        """The same error with the operator's place in the recipe, where it names none."""
        place = f"{self.name}:{operator.mark.line}:{operator.mark.column}"
        return type(error).of(
            p if p.where else Problem(what=p.what, where=place, fix=p.fix) for p in error.problems
        )

    def _check_rules(self, operator: Operator, model: Model) -> None:
        """A rule that decides for no tensor is a mistake in its glob or in the rules' order."""
        for parameter, schedule in operator.schedules():
            decided = Counter(map(schedule.rule_at, model.tensors))
            for index, rule in enumerate(schedule.rules):
                if rule.match is None or decided[index]:
                    continue
                self.problems.append(
                    Problem(
                        where=f"{self.name}:{operator.mark.line}:{operator.mark.column}",
                        what=f"'{operator.operator}': {parameter}: rule '{rule.match}' matches no "
                        "tensor that the rules before it have left",
                        fix="names are like " + ", ".join(list(model.tensors)[1:4]),
                    )
                )

    def _written_dtype(self, node: Node) -> DType:
        wanted = self.recipe.output.dtype
        return TORCH_NAMES[wanted] if wanted and node.dtype.computable else node.dtype

    def _config(self, result: Model, dtypes: Mapping[str, DType]) -> dict[str, Any]:
        weights: Counter[DType] = Counter()
        for name, node in result.tensors.items():
            if dtypes[name].computable:
                weights[dtypes[name]] += math.prod(node.shape)
        names = {dtype: torch_name for torch_name, dtype in TORCH_NAMES.items()}
        most = weights.most_common(1)
        config = result.config if self.copy_code else without_code(result.config)
        if config != result.config:
            self.notes.append(f"config.json: {CODE_DROPPED}")
        return config_with_weights(
            result.architecture,
            config,
            dtype=names[most[0][0]] if most and not result.is_quantized else None,
            tied=False if _head_parts_from_embedding(result.tensors) else None,
        )

    def _sidecars(self, result: Model) -> tuple[SidecarFile, ...]:
        donor = self._folders[result.donor]
        tokenizer = donor
        if named := self.recipe.output.tokenizer:
            tokenizer = self._folders[self._model(Reference(named), named).donor]
        sidecars = tuple(sidecars_of(donor, tokenizer, code=self.copy_code))
        self.notes += [f"{s.name}: {CODE_DROPPED}" for s in sidecars if s.data is not None]
        return sidecars


def _head_parts_from_embedding(tensors: Mapping[str, Node]) -> bool:
    """Whether a stored output head is made otherwise than the embedding a config ties it to."""
    heads = [n for n in tensors if n.endswith(("lm_head.weight", "embed_out.weight"))]
    embeddings = [
        n for n in tensors if n.endswith(("embed_tokens.weight", "embed_in.weight", "wte.weight"))
    ]
    if not heads or not embeddings:
        return False
    return _recipe_of(tensors[heads[0]]) != _recipe_of(tensors[embeddings[0]])


def _recipe_of(node: Node) -> object:
    """A node without the names of its tensors: what is done to which sources."""
    if isinstance(node, Stored):
        return node.tensor.path.parent
    if isinstance(node, Zeros):
        return "zeros"
    how = node.weights if isinstance(node, Sum) else node.parameters
    return (how, *map(_recipe_of, node.inputs))
