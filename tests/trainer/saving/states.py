"""States in which every value is the step, so that a mixture of two shows."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from tensorsurgeon.trainer.saving import Saver, State, Written
from tests.trainer.saving.training import full


def state_of(step: int, rows: int = 5) -> State:
    """Sharded and whole tensors, nested and in lists; 2800 bytes a row."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    sharded = distribute_tensor(torch.full((rows, 700), float(step)), mesh, [Shard(0)])
    whole = {"scalar": torch.tensor(float(step)), "whole": torch.full((3,), float(step))}
    pair = [torch.tensor(step), torch.tensor([step])]
    return {"sharded": sharded, "more": whole, "counts": {"pair": pair}}


def steps_of(state: State) -> set[float]:
    """The steps that a state's values are of."""
    state = full(state)
    tensors = [state["sharded"], *state["more"].values()]
    numbers = state["counts"]["pair"]
    return {*torch.cat([t.flatten() for t in tensors]).tolist(), *map(float, numbers)}


def loaded(folder: Path, rows: int = 5) -> tuple[int, set[float], Any]:
    """The newest checkpoint: its step, what is in it, and its meta."""
    with Saver(folder, keep=9) as saver:
        saved = saver.latest(print)
        assert saved
        state = state_of(-1, rows)
        saver.load(saved, state)
        return saved.step, steps_of(state), saved.meta


def save_steps(folder: Path, keep: int, steps: list[int]) -> list[Written]:
    """Saves that follow one upon another, each waiting for the one before."""
    told: list[Written] = []
    with Saver(folder, keep=keep, done=told.append) as saver:
        for step in steps:
            saver.save(step, state_of(step), {"step": step})
            saver.poll()
        saver.wait()
        saver.poll()
    return told
