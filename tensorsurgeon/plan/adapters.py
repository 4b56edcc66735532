"""Models under LoRA adapters: which tensor each of an adapter's modules changes, and into what."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from tensorsurgeon.arch import config_with_weights
from tensorsurgeon.checkpoint import AdaptedModule, Checkpoint, adapter_of
from tensorsurgeon.checkpoint.json_scan import NAME_SHOWN
from tensorsurgeon.errors import (
    ArchitectureError,
    CheckpointError,
    PlanError,
    did_you_mean,
    shortened,
)
from tensorsurgeon.operators import Lora, LowRank
from tensorsurgeon.plan.model import Model
from tensorsurgeon.plan.nodes import Node, Stored, Streamed, Sum
from tensorsurgeon.specs import StoredTensor

_CONV1D = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer"})
"""Families whose layers have Conv1D modules, which store weights as (in, out)."""

_EMBEDDINGS = ("embed_tokens.weight", "embed_in.weight", "wte.weight")
_HEADS = ("lm_head.weight", "embed_out.weight")
_SPEAKING = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How the names of architectures end that have an output head."""

_MOVED = (
    ("model.language_model.", "language_model.model."),
    ("model.vision_tower.", "vision_tower."),
    ("lm_head.", "language_model.lm_head."),
)
"""Where multimodal models have modules in transformers, and in files; or the other way round."""

_MANY = 2000
"""More names than this take seconds to be searched for similar ones."""


def adapt_model(operator: Lora, model: Model, checkpoint: Checkpoint, source: str) -> Model:
    """The model that an adapter makes of another; what it does not change stays as it is.

    A head that is tied to the embedding becomes a tensor of its own where the adapter changes one
    of the two, since they were trained apart.

    Args:
        operator: tells how far to go.
        model: what the adapter is applied to.
        checkpoint: the adapter's folder.
        source: what to call the adapter as a source.

    Raises:
        ArchitectureError: the adapter is for another model.
        CheckpointError: it contradicts itself.
        PlanError: a tensor that nothing can be computed on.
    """
    if model.is_quantized:
        raise ArchitectureError(
            f"'{model.label}' is quantized: its stored numbers mean nothing without their scales, "
            "so that no adapter can be added to them",
            fix="apply the adapter to the unquantized model, and quantize the result",
        )
    return _Adapting(operator, model, checkpoint, source).model()


def adapter_label(model: str) -> str:
    """What to call the adapter of a named model as a source."""
    return f"adapter of {model}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Change:
    """What an adapter does to one tensor.

    Attributes:
        target: the tensor, as the model has it.
        module: the module whose factors change it; empty for none.
        factors: these, where it is the weight.
        added: the bias of the second one, where it is the bias.
        saved: what takes its place before.
    """

    target: str
    module: str = ""
    factors: AdaptedModule | None = None
    added: StoredTensor | None = None
    saved: StoredTensor | None = None


class _Adapting:
    """One adapter on its way into one model."""

    def __init__(self, operator: Lora, model: Model, checkpoint: Checkpoint, source: str) -> None:
        self.operator = operator
        self.base = model
        self.source = source
        self.where = str(checkpoint.path)
        self.adapter = adapter_of(checkpoint)
        self.tensors = dict(model.tensors)
        self.config = model.config

    def model(self) -> Model:
        modules, whole = self.adapter.modules, self.adapter.whole
        weights = {f"{module}.weight": module for module in modules}
        biases = {f"{module}.bias": module for module in modules if modules[module].bias}
        names = list(dict.fromkeys([*weights, *biases, *whole]))
        self._part_head(names)
        places = self._places(names)
        changes = []
        for name in names:
            module = weights.get(name) or biases.get(name) or ""
            change = _Change(
                target=places[name],
                module=module,
                factors=modules[module] if name in weights else None,
                added=modules[module].bias if name in biases else None,
                saved=whole.get(name),
            )
            changes.append(change)
        self._check_fit(changes)
        for change in changes:
            self.tensors[change.target] = self._changed(change)
        label = self.operator.operator
        return replace(self.base, label=label, config=self.config, tensors=self.tensors)

    def _part_head(self, names: Iterable[str]) -> None:
        """Give a tied head a tensor of its own, if it or the embedding changes."""
        architecture, config = self.base.architecture, self.base.config
        embedding = next((n for n in self.tensors if n.endswith(_EMBEDDINGS)), None)
        named = config.get("architectures")
        speaks = isinstance(named, list) and any(str(n).endswith(_SPEAKING) for n in named[:1])
        is_tied = (
            embedding is not None
            and not any(n.endswith(_HEADS) for n in self.tensors)
            and architecture.text_of(config).get("tie_word_embeddings") is not False
            and speaks
        )
        if not is_tied or embedding is None:
            return
        changes_head = any(name.endswith(_HEADS) for name in names)
        parts = not self.adapter.config.ensure_weight_tying
        if changes_head or (parts and any(self._find(name) == embedding for name in names)):
            head = "embed_out.weight" if "embed_in" in embedding else "lm_head.weight"
            nested = "language_model." if embedding.startswith("language_model.") else ""
            self.tensors[nested + head] = self.tensors[embedding]
            self.config = config_with_weights(architecture, config, dtype=None, tied=False)

    def _places(self, names: Iterable[str]) -> dict[str, str]:
        """The model's tensors by the adapter's names for them."""
        found = {name: self._find(name) for name in names}
        places = {name: place for name, place in found.items() if place is not None}
        if lacking := [name for name, place in found.items() if place is None]:
            raise ArchitectureError(
                f"'{self.base.label}' has no '{shortened(lacking[0], NAME_SHOWN)}', which "
                f"'{self.source}' changes ({len(lacking)} such tensors){self._of_another()}",
                fix=did_you_mean(lacking[0], list(self.tensors)[:_MANY]),
            )
        twice, count = Counter(places.values()).most_common(1)[0]
        if count > 1:
            what = f"changes '{twice}' of '{self.base.label}' twice"
            raise CheckpointError(what, where=self.where)
        return places

    def _find(self, name: str) -> str | None:
        """A tensor of the model by an adapter's name for it."""
        return next((n for n in self._spellings(name) if n in self.tensors), None)

    def _spellings(self, name: str) -> Iterator[str]:
        """The names under which a tensor may be stored, the likeliest first.

        Checkpoints are saved with the name of the inner model before all others, or without.
        """
        yield name
        yield name.partition(".")[2]
        yield f"{self.base.architecture.prefix.partition('.')[0]}.{name}"
        for pair in _MOVED:
            for here, there in (pair, pair[::-1]):
                if name.startswith(here):
                    yield there + name.removeprefix(here)

    def _check_fit(self, changes: Iterable[_Change]) -> None:
        misfits = [(c, wanted) for c in changes if (wanted := self._misfit(c)) is not None]
        if misfits:
            change, wanted = misfits[0]
            shape = self.tensors[change.target].shape
            words = change.target.endswith((*_EMBEDDINGS, *_HEADS)) and shape[1:] == wanted[1:]
            raise ArchitectureError(
                f"'{self.source}' is for another base: it changes '{change.target}' as "
                f"{list(wanted)}, which is {list(shape)} in '{self.base.label}' "
                f"({len(misfits)} such tensors){self._of_another()}",
                fix="give the model the adapter's vocabulary first" if words else "",
            )

    def _of_another(self) -> str:
        """What the adapter says that it was trained over."""
        named = self.adapter.config.base_model_name_or_path
        return f"; it was trained over '{named}'" if named else ""

    def _misfit(self, change: _Change) -> tuple[int, ...] | None:
        """The shape that a tensor would need for a change that does not fit it."""
        shape = self.tensors[change.target].shape
        if change.saved is not None and change.saved.spec.shape != shape:
            return change.saved.spec.shape
        if change.added is not None and (change.added.spec.elements,) != shape:
            return (change.added.spec.elements,)
        if change.factors is not None and self._is_transposed(change) is None:
            out, into = _features(change.factors)
            return (into, out) if change.factors.is_embedding else (out, into)
        return None

    def _is_transposed(self, change: _Change) -> bool | None:
        """Whether a weight is stored as (in, out); None where it is neither that nor (out, in)."""
        assert change.factors is not None
        shape, features = self.tensors[change.target].shape, _features(change.factors)
        if change.factors.is_embedding:
            return True if shape == features[::-1] else None
        architecture = self.base.architecture
        in_layer = architecture.split(change.target) is not None
        # PEFT notes for the adapter as a whole what it found at the module it came to last.
        may_be = self.adapter.config.fan_in_fan_out or (
            in_layer and architecture.model_type in _CONV1D
        )
        if may_be and shape == features[::-1]:
            return True
        return False if shape == features else None

    def _changed(self, change: _Change) -> Node:
        """What becomes of a tensor."""
        original = self.tensors[change.target]
        weight = self.operator.weight.at(self.base.place(change.target))
        if weight == 0.0:
            return original
        if change.saved is None:
            return self._with_product(change, original, weight)
        new = self._with_product(change, self._stored(change.saved), 1.0)
        if weight == 1.0 and new.dtype is original.dtype:
            return new
        self._check_computable(change, original)
        name = self.operator.operator
        if weight == 1.0:
            return Sum(operator=name, inputs=(new,), weights=(1.0,), written=original.dtype)
        weights = (1.0 - weight, weight)
        return Sum(operator=name, inputs=(original, new), weights=weights, based=True)

    def _with_product(self, change: _Change, node: Node, weight: float) -> Node:
        """A node with what the factors, or the bias of one, add to it."""
        name = self.operator.operator
        if change.factors is None and change.added is None:
            return node
        self._check_computable(change, node)
        parts = self.adapter.modules[change.module]
        assert parts.a is not None
        assert parts.b is not None
        rank = parts.a.spec.shape[0]
        scale = self.adapter.config.scale_of(change.module, rank)
        if change.added is not None:
            inputs = (node, self._stored(change.added))
            return Sum(operator=name, inputs=inputs, weights=(1.0, scale * weight), based=True)
        used = [tensor for tensor in (parts.a, parts.b, parts.magnitude) if tensor is not None]
        product = LowRank(
            name=change.target,
            base=self.operator.model,
            rank=rank,
            transposed=bool(self._is_transposed(change)),
            with_magnitudes=parts.magnitude is not None,
        )
        return Streamed(
            operator=product,
            parameters=(("scale", scale), ("weight", weight)),
            inputs=(node, *map(self._stored, used)),
            name=change.target,
            seed=0,
        )

    def _stored(self, tensor: StoredTensor) -> Stored:
        return Stored(tensor=tensor, source=self.source)

    def _check_computable(self, change: _Change, node: Node) -> None:
        if not node.dtype.computable:
            raise PlanError(
                f"nothing can be added to tensor '{change.target}' of dtype {node.dtype.value}",
                fix=f'leave it as it is by a rule of weight, as {{match: "{change.target}", '
                "value: 0}",
            )


def _features(parts: AdaptedModule) -> tuple[int, int]:
    """How many features come out of a module, and go into it."""
    assert parts.a is not None
    assert parts.b is not None
    return parts.b.spec.shape[0], parts.a.spec.shape[1]
