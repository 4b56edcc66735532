"""From a recipe and its opened sources to a `Plan`."""

import math
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

from tensorsurgeon.arch import config_with_weights, without_code
from tensorsurgeon.checkpoint import Checkpoint
from tensorsurgeon.checkpoint.layout import lay_out
from tensorsurgeon.documents import LocatedStr, Mark
from tensorsurgeon.errors import PlanError, Problem, RecipeError, TensorSurgeonError
from tensorsurgeon.operators import LayerOperator, Lora, MergeOperator
from tensorsurgeon.plan.adapters import adapt_model, adapter_label
from tensorsurgeon.plan.leaves import Leaves
from tensorsurgeon.plan.merging import config_differences, merge_models
from tensorsurgeon.plan.model import Model, source_model
from tensorsurgeon.plan.nodes import Node, Stored, Sum, Zeros
from tensorsurgeon.plan.outcome import OutputTensor, Plan
from tensorsurgeon.plan.sidecars import CODE_DROPPED, SidecarFile, sidecars_of
from tensorsurgeon.plan.stacking import stack_layers
from tensorsurgeon.plan.tokenizers import Tokenizer, joined_as_asked, tokenizer_of
from tensorsurgeon.plan.vocabularies import Files, Joining, Members, notes_of
from tensorsurgeon.recipe import Operator, Recipe, Reference, Source
from tensorsurgeon.recipe.portable import portable_text
from tensorsurgeon.specs import TORCH_NAMES, DType, TensorSpec
from tensorsurgeon.vocabulary import chat_template, tokenizer_files
from tensorsurgeon.vocabulary.templates import with_template


def make_plan(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    adapters: Mapping[str, Checkpoint],
    tokenizers: Mapping[str, Files],
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
        tokenizers: the files of sources' tokenizers that the recipe asks to look into, as the
            checkpoints.
        name: what to call the recipe in errors.
        text: the recipe's file.
        copy_code: whether Python files go along, and configs go on naming their classes.

    Raises:
        TensorSurgeonError: whatever is wrong, as the class of that mistake.
    """
    return _Planner(recipe, checkpoints, adapters, tokenizers, name, text, copy_code).plan()


class _Planner:
    def __init__(
        self,
        recipe: Recipe,
        checkpoints: Mapping[str, Checkpoint],
        adapters: Mapping[str, Checkpoint],
        tokenizers: Mapping[str, Files],
        name: str,
        text: str,
        copy_code: bool,
    ) -> None:
        self.recipe = recipe
        self.checkpoints = checkpoints
        self.adapters = adapters
        self.tokenizers = tokenizers
        self.name = name
        self.text = text
        self.copy_code = copy_code
        self.notes: list[str] = []
        self.problems: list[Problem] = []
        self._models: dict[str, Model] = {}
        self._folders: dict[str, Checkpoint] = {}
        self._depths: dict[str, int] = {}
        self._leaves = Leaves(recipe)
        self._joining: Joining | None = None

    def plan(self) -> Plan:
        self._joining = self._joined()
        result = self._operand(self.recipe.result, "result")
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
        tokenizer = self._tokenizer(result)  # may open a source that nothing else reads
        sidecars = self._sidecars(result, tokenizer)
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
            own_files=tokenizer.made,
            parsed=0 if self._joining is None else self._joining.parsed,
        )

    def _joined(self) -> Joining | None:
        """The models' vocabularies as one, where the recipe asks for that."""
        wanted = self.recipe.output.vocabulary
        if wanted is None:
            return None
        reading, members = Members(), {}
        for name, leaf in self._leaves.of(self.recipe.result, *wanted.references()).items():
            source = self._leaves.source_of(leaf).path
            members[name] = reading.read(
                self._model(leaf, ""),
                source,
                self.tokenizers[source],
                folder=str(self.checkpoints[source].path),
            )
        try:
            joined = joined_as_asked(wanted, members, self._leaves, self._place)
        except TensorSurgeonError as error:
            raise self._located(error, wanted.mark) from None
        joining = Joining(members, joined, reading.parsed)
        self.notes += notes_of(joining)
        return joining

    def _operand(self, expression: Operator | Reference, label: str = "") -> Model:
        """A model as it is merged and stacked: with the vocabulary of the result."""
        leaf = None if self._joining is None else self._leaves.name_of(expression)
        if self._joining is None or leaf is None:
            return self._model(expression, label)
        try:
            return self._joining.model(leaf)
        except TensorSurgeonError as error:
            assert self.recipe.output.vocabulary is not None
            raise self._located(error, self.recipe.output.vocabulary.mark) from None

    def _model(self, expression: Operator | Reference, label: str) -> Model:
        if isinstance(expression, Reference):
            name = expression.name
            if name not in self._models:
                self._models[name] = self._model(self.recipe.models[name], name)
            return self._models[name]
        if isinstance(expression, Source):
            checkpoint = self.checkpoints[expression.path]
            label = self._leaves.label(expression.path) if label in ("", "result") else label
            if label not in self._folders:
                self.notes += [f"'{label}': {note}" for note in checkpoint.notes]
            model = source_model(label, checkpoint, expression.layers)
            self._folders[label], self._depths[label] = checkpoint, model.architecture.depth
            return model
        # An adapter was trained over a model as it is.
        inner = self._model if isinstance(expression, Lora) else self._operand
        operands = [inner(operand, "") for operand in expression.operands()]
        try:
            return self._apply(expression, operands)
        except TensorSurgeonError as error:
            raise self._located(error, expression.mark) from None

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
        named = next((n for n, model in self.recipe.models.items() if model is operator), None)
        inline = f"adapter {self._leaves.label(operator.adapter)}"
        label = inline if named is None else adapter_label(named)
        if label not in self._folders:
            self.notes += [f"'{label}': {note}" for note in checkpoint.notes]
        self._folders[label] = checkpoint
        model = adapt_model(operator, base, checkpoint, label)
        self.notes += [
            f"'{label}': {name}, which was the embedding, becomes a tensor of its own"
            for name in model.tensors.keys() - base.tensors.keys()
        ]
        return model

    def _place(self, mark: Mark) -> str:
        return f"{self.name}:{mark.line}:{mark.column}"

    def _located(self, error: TensorSurgeonError, mark: Mark) -> TensorSurgeonError:
        """The same error with a place in the recipe, where it names none."""
        place = self._place(mark)
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
                        where=self._place(operator.mark),
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
        whole = result.config
        if self._joining is not None:
            owner = self._owner(self._folders[result.donor])
            whole = self._joining.config(result, owner)
        config = whole if self.copy_code else without_code(whole)
        if config != whole:
            self.notes.append(f"config.json: {CODE_DROPPED}")
        return config_with_weights(
            result.architecture,
            config,
            dtype=names[most[0][0]] if most and not result.is_quantized else None,
            tied=False if _head_parts_from_embedding(result.tensors) else None,
        )

    def _tokenizer(self, result: Model) -> Tokenizer:
        """The files of the result's tokenizer."""
        output, template = self.recipe.output, self._template()
        if self._joining is not None:
            path = self._joining.members[self._joining.joined.ground].source
            made = tokenizer_files(self._joining.joined, self.tokenizers[path], template)
            donor = self.checkpoints[path]
            return tokenizer_of(donor, self.tokenizers[path], made, code=self.copy_code)
        named = output.tokenizer
        model = result if named is None else self._model(Reference(named), named)
        donor = self._folders[model.donor]
        if template is None:
            return Tokenizer(donor=donor)
        files = next(f for path, f in self.tokenizers.items() if self.checkpoints[path] is donor)
        return tokenizer_of(donor, files, with_template(files, template), code=self.copy_code)

    def _template(self) -> str | None:
        """The chat template that the recipe asks for."""
        said = self.recipe.output.chat_template
        if said is None:
            return None
        leaves = self._leaves.of(self.recipe.result).values()
        paths = [self._leaves.source_of(leaf).path for leaf in leaves]
        models = [(str(self.checkpoints[path].path), self.tokenizers[path]) for path in paths]
        try:
            found = chat_template(said, models)
        except TensorSurgeonError as error:
            mark = said.mark if isinstance(said, LocatedStr) else Mark()
            raise self._located(error, mark) from None
        if found is None:
            self.notes.append("chat_template: none of the models has one")
        return found

    def _sidecars(self, result: Model, tokenizer: Tokenizer) -> tuple[SidecarFile, ...]:
        donor, joining = self._folders[result.donor], self._joining
        changes = None if joining is None else partial(joining.ids, owner=self._owner(donor))
        sidecars = tuple(
            sidecars_of(
                donor,
                tokenizer.donor,
                code=self.copy_code,
                replaced=tokenizer.replaced,
                changes=changes,
            )
        )
        self.notes += [f"{s.name}: {CODE_DROPPED}" for s in sidecars if s.names_dropped]
        return sidecars

    def _owner(self, donor: Checkpoint) -> str:
        """The member whose config the result's is made from."""
        assert self._joining is not None
        members = self._joining.members
        owners = [n for n in members if self.checkpoints[members[n].source] is donor]
        ground = self._joining.joined.ground
        return ground if ground in owners else owners[0]


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
