"""A tiny sharded training: tied embeddings, frozen and odd-sized parameters, two learning rates."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tensorsurgeon.trainer.saving import Saver, restore_training_state, training_state

VOCAB, WIDTH = 61, 33


class Tiny(nn.Module):
    """Three layers between an embedding and a head that are one parameter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU()) for _ in "123"
        )
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("scale", torch.tensor(0.5))
        self.layers[0].requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens)
        for layer in self.layers:
            hidden = hidden + self.scale * layer(hidden)
        return self.head(hidden)


def sharded(*, frozen_embedding: bool = False) -> tuple[Tiny, torch.optim.AdamW]:
    model = Tiny()
    model.embedding.requires_grad_(not frozen_embedding)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    layer = model.layers[2].parameters()
    others = [*model.layers[1].parameters(), model.embedding.weight]
    # One group has frozen parameters in it, too.
    groups = [
        {"params": list(layer), "lr": 1e-2, "weight_decay": 0.0},
        {"params": [*others, *model.layers[0].parameters()]},
    ]
    return model, torch.optim.AdamW(groups, lr=1e-3, betas=(0.8, 0.9), fused=True)


def take_step(model: Tiny, optimizer: torch.optim.AdamW, step: int) -> str:
    """One step, of data that the step decides; the loss to the last bit."""
    chance = torch.Generator().manual_seed(step)
    tokens = torch.randint(VOCAB, (4, 9), generator=chance)
    mine = tokens.chunk(dist.get_world_size())[dist.get_rank()]
    scores = model(mine[:, :-1])
    loss = nn.functional.cross_entropy(scores.flatten(0, 1), mine[:, 1:].flatten())
    loss.backward()
    for group, base in zip(optimizer.param_groups, (1e-2, 1e-3), strict=True):
        group["lr"] = base / (1 + step)
    optimizer.step()
    optimizer.zero_grad()
    total = loss.detach().clone()
    dist.all_reduce(total)
    return float(total).hex()


def full(state: Any) -> Any:
    """A state with every DTensor whole."""
    if isinstance(state, DTensor):
        return state.full_tensor().clone()
    if isinstance(state, dict):
        return {key: full(value) for key, value in state.items()}
    return state.clone() if isinstance(state, Tensor) else state


def train(
    folder: Path, last: int, every: int = 0, frozen_embedding: bool = False
) -> tuple[list[str], dict[str, Any]]:
    """Take the steps that are left; their losses, and the whole state at the end."""
    model, optimizer = sharded(frozen_embedding=frozen_embedding)
    losses = []
    with Saver(folder, keep=2) as saver:
        first = resume(saver, model, optimizer)
        for step in range(first, last):
            losses.append(take_step(model, optimizer, step))
            saver.poll()
            if every and (step + 1) % every == 0:
                saver.save(step + 1, training_state(model, optimizer), {})
        saver.wait()
    return losses, full(training_state(model, optimizer))


def resume(
    saver: Saver,
    model: Tiny,
    optimizer: torch.optim.AdamW,
    notice: Callable[[str], None] = print,
) -> int:
    """Go on from the newest checkpoint; the steps that it has taken."""
    saved = saver.latest(notice)
    if not saved:
        return 0
    state = training_state(model, optimizer)
    saver.load(saved, state)
    restore_training_state(model, optimizer, state)
    return saved.step
