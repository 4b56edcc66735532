"""From a recipe and its opened sources to a `Plan`."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tensorsurgeon.arch import config_with_weights, without_code
from tensorsurgeon.checkpoint import Checkpoint, FileIdentity, Identity, RemoteFile, Repo
from tensorsurgeon.errors import PlanError, Problem, RecipeError, TensorSurgeonError
from tensorsurgeon.operators import LayerOperator, MergeOperator
from tensorsurgeon.plan.forecast import copied
from tensorsurgeon.plan.layout import Shard, lay_out
from tensorsurgeon.plan.merging import config_differences, merge_models
from tensorsurgeon.plan.model import Model, source_model
from tensorsurgeon.plan.nodes import Node, Stored, Sum, Zeros, bytes_read, read_twice_in, stored_in
from tensorsurgeon.plan.sidecars import CODE_DROPPED, OwnFile, SidecarFile, sidecars_of
from tensorsurgeon.plan.stacking import stack_layers
from tensorsurgeon.recipe import Operator, Recipe, Reference, Source
from tensorsurgeon.recipe.portable import is_local, portable_path, portable_text
from tensorsurgeon.specs import PAGE, TORCH_NAMES, DType, LayerOrigin, StoredTensor, TensorSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputTensor:
    """One tensor of the result.

    Attributes:
        spec: its name, dtype and shape as written.
        node: what it is made of.
        shard: the file it goes to.
        offset: where its bytes begin there.
    """

    spec: TensorSpec
    node: Node
    shard: str
    offset: int

    @property
    def is_copied(self) -> bool:
        """Whether it is written without arithmetic."""
        return copied(self.node, self.spec.dtype)

    @property
    def bytes_read(self) -> int:
        """Bytes read to make it, all passes counted."""
        return bytes_read(self.node)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything a run will do, before it does anything.

    Attributes:
        recipe: name of the recipe, for messages.
        recipe_text: the recipe as it was read.
        shown_recipe: the same without paths of this machine, as it goes along.
        seed: of methods that draw random numbers.
        sources: the folder each source of the recipe was found in.
        depths: how many layers each of them has.
        repos: the commit that a folder is of, for those in the Hub's cache.
        identities: the sources' files, as they were before they were read.
        tensors: the tensors of the result, in the order of shards and offsets.
        shards: its files.
        config: its config.json.
        sidecars: files that are copied beside.
        layer_map: where each of its layers came from.
        notes: what the user should know before the start.
        destination: the folder to make, where the recipe or the caller names one.
        push: the repository it goes to as well, where one is named.
        push_only: whether it goes there alone, shard by shard, and none of it is kept.
        own_files: files that are made here and go along: model card, recipe, layer map.
    """

    recipe: str
    recipe_text: str
    shown_recipe: str
    seed: int
    sources: Mapping[str, Path]
    depths: Mapping[str, int]
    repos: Mapping[Path, Repo]
    identities: Mapping[Path, Identity]
    tensors: tuple[OutputTensor, ...]
    shards: tuple[Shard, ...]
    config: Mapping[str, Any]
    sidecars: tuple[SidecarFile, ...]
    layer_map: tuple[LayerOrigin, ...]
    notes: tuple[str, ...]
    destination: Path | None = None
    push: str | None = None
    push_only: bool = False
    own_files: tuple[OwnFile, ...] = ()

    @cached_property
    def bytes_read(self) -> int:
        """Bytes of tensors that a run reads, all passes counted."""
        if self.push_only:  # what is in several shards is made again for each
            return sum(self.bytes_read_for(shard) for shard in self.shards)
        return sum(batch[0].bytes_read for batch in batches(self.tensors))

    def bytes_read_for(self, shard: Shard) -> int:
        """Bytes of tensors that one shard is made of, all passes counted."""
        tensors = [tensor for tensor in self.tensors if tensor.shard == shard.name]
        return sum(batch[0].bytes_read for batch in batches(tensors))

    @property
    def bytes_on_disk(self) -> int:
        """The most bytes of the result that are on the disk at a time."""
        if not self.push_only:
            return self.bytes_written + self.bytes_beside
        return max((shard.nbytes for shard in self.shards), default=0) + self.bytes_beside

    @cached_property
    def bytes_written(self) -> int:
        """Bytes of the result's shards, headers included."""
        return sum(shard.nbytes for shard in self.shards)

    @property
    def bytes_beside(self) -> int:
        """Bytes of the files that go along."""
        beside = sum(sidecar.identity.nbytes for sidecar in self.sidecars)
        return beside + sum(len(own.data) for own in self.own_files)

    @property
    def parameters(self) -> int:
        """Number of elements of the result's tensors."""
        return sum(tensor.spec.elements for tensor in self.tensors)

    @property
    def seams(self) -> tuple[int, ...]:
        """Layers that get another input than in their source.

        A new layer is none, since what lies below it is what lay below its original's successor.
        """
        return tuple(
            layer
            for layer in range(1, len(self.layer_map))
            if not self.layer_map[layer].new
            and not self.layer_map[layer].follows(self.layer_map[layer - 1])
        )

    def jobs(self) -> Iterator[tuple[Node, DType]]:
        """What each tensor is made of, and the dtype it is written in."""
        return ((tensor.node, tensor.spec.dtype) for tensor in self.tensors)

    def inputs(self) -> dict[Path, Identity]:
        """Every file that the result depends on, as it was before it was read."""
        return {**self.identities, **{s.path: s.identity for s in self.sidecars}}

    def to_fetch(self, *, shards: bool = True) -> dict[Path, RemoteFile]:
        """The files that a run reads and that are not here; the small ones alone, or shards too."""
        read = {sidecar.path for sidecar in self.sidecars} | (self.paths() if shards else set())
        return {
            path: identity
            for path, identity in self.inputs().items()
            if path in read and isinstance(identity, RemoteFile)
        }

    def with_files(self, found: Mapping[Path, FileIdentity]) -> "Plan":
        """The same plan when files of it have come."""
        return replace(
            self,
            identities={path: found.get(path, was) for path, was in self.identities.items()},
            sidecars=tuple(
                replace(sidecar, identity=found.get(sidecar.path, sidecar.identity))
                for sidecar in self.sidecars
            ),
        )

    def paths(self) -> set[Path]:
        """The files that tensor bytes are read from."""
        return {s.tensor.path for tensor in self.tensors for s in stored_in(tensor.node)}


def batches(tensors: Iterable[OutputTensor]) -> list[tuple[OutputTensor, ...]]:
    """The tensors, those together that are one and the same: made once, written to several places.

    A stack that takes a layer twice has such. Their places begin at the same offset within a page,
    so that one piece of memory suits the direct writes to all of them.
    """
    same: dict[tuple[int, DType, int], list[OutputTensor]] = {}
    for tensor in tensors:
        key = id(tensor.node), tensor.spec.dtype, tensor.offset % PAGE
        same.setdefault(key, []).append(tensor)
    return [tuple(batch) for batch in same.values()]


def read_twice(plan: Plan) -> frozenset[StoredTensor]:
    """The stored tensors that are read more than once for one tensor of the result."""
    return frozenset(tensor for made in plan.tensors for tensor in read_twice_in(made.node))


def make_plan(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    *,
    name: str,
    text: str,
    copy_code: bool = False,
) -> Plan:
    """Work out a recipe. No tensor byte is read.

    Args:
        recipe: the recipe.
        checkpoints: each source's opened checkpoint, by the source's `path` in the recipe.
        name: what to call the recipe in errors.
        text: the recipe's file.
        copy_code: whether Python files go along, and configs go on naming their classes.

    Raises:
        TensorSurgeonError: whatever is wrong, as the class of that mistake.
    """
    return _Planner(recipe, checkpoints, name, text, copy_code).plan()


class _Planner:
    def __init__(
        self,
        recipe: Recipe,
        checkpoints: Mapping[str, Checkpoint],
        name: str,
        text: str,
        copy_code: bool,
    ) -> None:
        self.recipe = recipe
        self.checkpoints = checkpoints
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
            model = merge_models(operator, operands)
            self._check_rules(operator, model)
            return model
        raise AssertionError(f"{operator.operator} belongs to no family")

    def _located(self, error: TensorSurgeonError, operator: Operator) -> TensorSurgeonError:
        """The same error with the operator's place in the recipe, where it names none."""
        place = f"{self.name}:{operator.mark.line}:{operator.mark.column}"
        return type(error).of(
            p if p.where else Problem(what=p.what, where=place, fix=p.fix) for p in error.problems
        )

    def _check_rules(self, operator: MergeOperator, model: Model) -> None:
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
