"""Ranks, devices and sharding: one path for a processor, one GPU and many (FSDP2)."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.attention.varlen
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from tensorsurgeon.errors import TrainingError
from tensorsurgeon.trainer.counted import counted
from tensorsurgeon.trainer.model import LanguageModel
from tensorsurgeon.trainer.run_file import Engine


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those of one training.

    Attributes:
        rank: its number.
        size: how many there are.
        device: what it computes on.
        mesh: all of them: (ranks,), or (replicas, ranks of one) for HSDP.
        precision: dtype of the computation.
    """

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh
    precision: torch.dtype

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks of values on the device, in place."""
        dist.all_reduce(values)
        return values

    def highest(self, value: float) -> float:
        """The largest of a number over all ranks."""
        told = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(told, op=dist.ReduceOp.MAX)
        return float(told.item())


@contextmanager
def joined(engine: Engine) -> Iterator[Ranks]:
    """Join the other ranks, as torchrun tells of them; one process alone is a group of one.

    Raises:
        TrainingError: no GPU where one is asked for, or replicas that do not divide the ranks.
    """
    device = choose_device(engine.device)
    if engine.threads is not None:
        torch.set_num_threads(engine.threads)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        if engine.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True)
    if "RANK" in os.environ and "MASTER_ADDR" in os.environ:
        dist.init_process_group(backend, device_id=device if device.type == "cuda" else None)
    else:
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    try:
        size = dist.get_world_size()
        if size % engine.replicate:
            what = f"cannot divide {counted(size, 'rank')} into {engine.replicate} replicas"
            raise TrainingError(what, fix="change engine: replicate, or the number of ranks")
        yield Ranks(
            rank=dist.get_rank(),
            size=size,
            device=device,
            mesh=_mesh(device, size, engine.replicate),
            precision=choose_precision(engine.precision, device),
        )
    finally:
        dist.destroy_process_group()


def choose_device(asked: str) -> torch.device:
    """The device of this process.

    Raises:
        TrainingError: there is no GPU and one is asked for, or fewer than there are ranks here.
    """
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "cpu" or (asked == "auto" and not here):
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= here:
        what = "there is no GPU here" if not here else f"rank {local} here has none of {here} GPUs"
        if not here and not torch.version.cuda:
            what += ", and torch is built without CUDA"
        raise TrainingError(what, fix="engine: device: cpu trains on the processor")
    return torch.device("cuda", local)


def choose_precision(asked: str, device: torch.device) -> torch.dtype:
    """The dtype of the computation; bfloat16 by default where a GPU has it."""
    if asked == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if asked == "bfloat16" else torch.float32


def _mesh(device: torch.device, size: int, replicate: int) -> DeviceMesh:
    if replicate == 1:
        return init_device_mesh(device.type, (size,), mesh_dim_names=("shard",))
    shape = (replicate, size // replicate)
    return init_device_mesh(device.type, shape, mesh_dim_names=("replicate", "shard"))


def shard(root: nn.Module, layers: Iterable[nn.Module], ranks: Ranks) -> None:
    """Shard every layer, and what is outside of them, over the ranks.

    Args:
        root: holds the layers; its forward pass is what is called.
        layers: gathered one at a time.
        ranks: whom to share with.
    """
    policy = MixedPrecisionPolicy(param_dtype=ranks.precision, reduce_dtype=torch.float32)
    # A rank that holds a layer by itself gathers it again for the backward pass all the same, which
    # is to cast it. Keeping the copy would spare 10 bytes of traffic a parameter (of an H100's
    # time, 1.4% where 16k tokens are computed together) and take 2 bytes a parameter, an eighth of
    # all that training holds of it and half where it is frozen: a larger micro-batch gains more.
    for layer in layers:
        fully_shard(layer, mesh=ranks.mesh, mp_policy=policy)
    fully_shard(root, mesh=ranks.mesh, mp_policy=policy)


def prepare_layers(
    model: LanguageModel, engine: Engine, device: torch.device, *, first_trained: int
) -> bool:
    """Activation checkpointing and compilation, before the layers are sharded.

    Args:
        model: the model.
        engine: what is asked for.
        device: what it will run on.
        first_trained: layers before this one run without gradients and keep no activations.

    Returns:
        Whether they are compiled.
    """
    compiled = is_compiled(engine, device.type)
    if compiled:
        # One piece of code serves all layers: trained and frozen, of every kind, in training and
        # evaluation. Beyond the limit they would silently not be compiled.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for index, layer in enumerate(model.layers):
        if engine.activation_checkpointing != "none" and index >= first_trained:
            selective = engine.activation_checkpointing == "selective"
            layer.forward = recomputed(layer.forward, KEPT_OPERATORS if selective else ())
        if compiled:
            # Its forward pass alone: hooks, those of sharding among them, stay outside the graph.
            layer.forward = torch.compile(layer.forward)
    return compiled


def is_compiled(engine: Engine, device: str) -> bool:
    """Whether layers are compiled on a kind of device."""
    return engine.compile == "on" or (engine.compile == "auto" and device == "cuda")


def recomputed(forward: Callable[..., Any], kept: Collection[Any]) -> Callable[..., Any]:
    """A layer's forward pass whose activations are computed again in the backward pass.

    Args:
        forward: the layer's own; its parameters keep their names.
        kept: operators whose outputs are not.
    """

    def chosen(_: Any, operator: Any, *_args: Any, **_kwargs: Any) -> CheckpointPolicy:
        listed = operator in kept
        return CheckpointPolicy.MUST_SAVE if listed else CheckpointPolicy.PREFER_RECOMPUTE

    # Without a context torch.compile wants none told, not even the default one.
    options: dict[str, Any] = (
        {"context_fn": partial(create_selective_checkpoint_contexts, chosen)} if kept else {}
    )

    def again(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(
            forward,
            *args,
            use_reentrant=False,
            preserve_rng_state=False,
            **options,
            **kwargs,
        )

    return again


_aten = torch.ops.aten
KEPT_OPERATORS = frozenset(
    {
        _aten.mm.default,
        _aten.addmm.default,
        _aten.bmm.default,
        _aten._scaled_dot_product_efficient_attention.default,
        _aten._scaled_dot_product_flash_attention.default,
        _aten._scaled_dot_product_flash_attention_for_cpu.default,
        _aten._scaled_dot_product_cudnn_attention.default,
        torch.ops.torch_attn._varlen_attn.default,
    }
)
"""What costs more to compute again than to keep: everything else is element by element."""
