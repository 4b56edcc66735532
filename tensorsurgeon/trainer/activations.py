"""How much of a forward pass is kept for the backward pass, measured on tensors without memory.

Autograd keeps what each operation asks for. torch.compile sees both passes of a layer at once,
keeps what is least, and makes the rest again (min-cut partition). So a layer that will be compiled
is compiled here as well, as far as that cut: no kernel is made, and no GPU is needed.
"""

import copy
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tensorsurgeon.trainer.model import LanguageModel
from tensorsurgeon.trainer.parallel import KEPT_OPERATORS, recomputed

Recomputation = Literal["none", "selective", "full"]

_NAME = "tensorsurgeon_forecast"


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Bytes of one layer.

    Attributes:
        kept: from its forward pass to its backward pass.
        again: made again at the beginning of its backward pass, beside what is kept.
    """

    kept: int
    again: int


_ATTENTION, _BACKWARD = "tensorsurgeon::fused_attention", "tensorsurgeon::fused_attention_backward"
torch.library.define(_ATTENTION, "(Tensor query, Tensor key, Tensor value) -> (Tensor, Tensor)")
torch.library.define(
    _BACKWARD,
    "(Tensor slope, Tensor query, Tensor key, Tensor value, Tensor out, Tensor sums)"
    " -> (Tensor, Tensor, Tensor)",
)
_fused = torch.ops.tensorsurgeon
"""Stand for any fused attention: it keeps its inputs, its output, a number a head and token."""


def _forward(query: Tensor, _: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """(B, heads, T, d) each."""
    batch, heads, tokens, _size = query.shape
    # The kernels lay a token's heads side by side, so that what follows needs no copy.
    out = query.new_empty(batch, tokens, heads, value.shape[-1]).transpose(1, 2)
    return out, query.new_empty(batch, heads, tokens, dtype=torch.float32)


def _backward(_: Tensor, query: Tensor, key: Tensor, value: Tensor, *__: Tensor) -> Any:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _go_back(ctx: Any, slope: Tensor, _: Tensor) -> Any:
    return _fused.fused_attention_backward(slope, *ctx.saved_tensors)


torch.library.register_fake(_ATTENTION, _forward)
torch.library.register_fake(_BACKWARD, _backward)
torch.library.register_autograd(_ATTENTION, _go_back, setup_context=_keep)

_KEPT = KEPT_OPERATORS | {_fused.fused_attention.default}


def _as_transformers_calls_it(
    _: nn.Module, query: Tensor, key: Tensor, value: Tensor, *__: Any, **___: Any
) -> tuple[Tensor, None]:
    return _fused.fused_attention(query, key, value)[0].transpose(1, 2), None


def layer_activations(
    model: LanguageModel,
    *,
    tokens: int,
    precision: torch.dtype,
    recomputation: Recomputation,
    compiled: bool,
) -> tuple[Activations, ...]:
    """What each layer keeps for its backward pass, in order; one that has none keeps nothing.

    Args:
        model: on the meta device; what is frozen requires no gradients.
        tokens: positions of a micro-batch.
        precision: of the computation.
        recomputation: what is computed again, as the run file has it.
        compiled: whether the layers will be.
    """
    # All that is compiled here may be the same code to torch.compile, which beyond a limit would
    # silently run it as it is.
    limits = {"recompile_limit": 1024, "fail_on_recompile_limit_hit": True}
    measured: dict[Any, Activations] = {}
    found = []
    for call in _calls_of_layers(model, tokens, precision):
        # Layers that are alike are compiled once.
        weights = tuple((p.shape, p.requires_grad) for p in call.layer.parameters())
        kind = (type(call.layer), weights, call.saved(call.layer.forward))
        if kind not in measured:
            with torch._dynamo.config.patch(limits):
                measured[kind] = _measured(call, recomputation, compiled)
        found.append(measured[kind])
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class _Call:
    """How a model calls a layer, on the meta device.

    Attributes:
        layer: a copy of the model's.
        args: of its forward pass.
        kwargs: of the same.
        shared: storages of what other layers are called with as well, as positions are.
    """

    layer: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    shared: frozenset[int]

    def saved(self, forward: Callable[..., Any]) -> int:
        """Bytes that a forward pass saves for the backward pass, beside weights and what is shared.

        Args:
            forward: the layer's own, or what was made of it.
        """
        others = self.shared | {_identity(weight) for weight in self.layer.parameters()}
        found: dict[int, torch.UntypedStorage] = {}  # held, so that no other takes its number

        def pack(tensor: Tensor) -> Tensor:
            if _identity(tensor) not in others:
                found[_identity(tensor)] = tensor.untyped_storage()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            forward(*self.args, **self.kwargs)
        return sum(storage.nbytes() for storage in found.values())

    @property
    def inputs(self) -> int:
        """Bytes of what the layer alone is called with."""
        given = _tensors((self.args, self.kwargs))
        return sum(tensor.nbytes for tensor in given if _identity(tensor) not in self.shared)


def _calls_of_layers(model: LanguageModel, tokens: int, precision: torch.dtype) -> list[_Call]:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(_NAME, _as_transformers_calls_it)
    AttentionMaskInterface.register(_NAME, lambda *_, **__: None)
    body: Any = copy.deepcopy(model.body).to(device="meta", dtype=precision)
    body.config._attn_implementation = _NAME
    calls: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = []
    for layer in body.get_submodule(model.prefix.removeprefix(model.body_prefix)[:-1]):
        layer.register_forward_pre_hook(lambda *call: calls.append(call), with_kwargs=True)
    mask = torch.empty(1, 1, 1, 1, device="meta")  # a mask of four dimensions is taken as it is
    body(torch.zeros(1, tokens, dtype=torch.int64, device="meta"), attention_mask=mask)
    given = Counter(
        identity
        for _, args, kwargs in calls
        for identity in {_identity(tensor) for tensor in _tensors((args, kwargs))}
    )
    shared = frozenset(identity for identity, count in given.items() if count > 1)
    return [
        _Call(layer=layer, args=args, kwargs=kwargs, shared=shared) for layer, args, kwargs in calls
    ]


def _measured(call: _Call, recomputation: Recomputation, compiled: bool) -> Activations:
    operators = _KEPT if recomputation == "selective" else frozenset()
    forward = call.layer.forward
    again = recomputed(forward, operators)
    if compiled:
        forward, again = _compiled(forward), _compiled(again)
    everything = call.saved(forward)
    if recomputation == "none" or not everything:
        return Activations(kept=everything, again=0)
    if compiled:
        kept = call.saved(again)
    else:  # what checkpoint itself keeps, it does not save as autograd does
        with _Made(operators) as made:
            forward(*call.args, **call.kwargs)
        kept = call.inputs + made.nbytes
    return Activations(kept=kept, again=max(everything - kept, 0))


class _Made(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes that some operators give."""

    def __init__(self, operators: Collection[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operators = operators
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in self._operators:
            self.nbytes += sum(tensor.nbytes for tensor in _tensors(out))
        return out


def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A layer's forward pass as torch.compile splits it from the backward pass."""
    compiled: Callable[..., Any] = torch.compile(forward, backend=_split, dynamic=False)
    return compiled


def _split(graph: Any, inputs: Any) -> Any:
    """Inductor's steps up to where it would make kernels."""
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch.aot_autograd import make_boxed_func  # type: ignore[attr-defined]
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor.decomposition import select_decomp_table

    def as_it_is(part: Any, _: Any) -> Any:
        return make_boxed_func(part.forward)

    split: Any = aot_autograd(
        fw_compiler=as_it_is,
        bw_compiler=as_it_is,
        partition_fn=partial(min_cut_rematerialization_partition, compiler="inductor"),
        decompositions=select_decomp_table(),
    )
    return split(graph, inputs)


def _tensors(nested: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)]


def _identity(tensor: Tensor) -> int:
    """A number of its storage, as long as that is held."""
    return int(tensor.untyped_storage()._cdata)
