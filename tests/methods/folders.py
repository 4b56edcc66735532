"""Models made of bare tensors, and recipes over them that run through the whole engine."""

import itertools
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorsurgeon import api
from tensorsurgeon.plan import Plan
from tests.cli.checkpoints import (
    NUMPY_DTYPES,
    TORCH_NAMES,
    Tensors,
    llama_config,
    llama_tensors,
    read_tensors,
    write_checkpoint,
)

Expression = str | Mapping[str, Any]
"""What a recipe says of its result, over the names of its models."""

HIDDEN = 48
"""Width of the tiny models: a matrix has a few thousand elements."""


class Workbench:
    """Writes models below a folder and merges them, each time into a new folder.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()

    def recipe(
        self, expression: Expression, models: Mapping[str, Tensors], *, dtype: str | None = None
    ) -> Path:
        """Writes models of one layer and a recipe whose result is `expression` over their names.

        Args:
            expression: the result.
            models: each model's tensors; those the expression does not name are left out.
            dtype: as the format calls it; by default each tensor keeps the first input's.
        """
        place = self.folder / f"{next(self._numbers)}"
        used = [name for name in models if f'"{name}"' in json.dumps(expression)]
        for name in used:
            write_checkpoint(place / name, models[name], llama_config(_depth(models[name])))
        output = {"path": "./out"} | ({"dtype": TORCH_NAMES[dtype]} if dtype else {})
        recipe = {
            "models": {name: f"./{name}" for name in used},
            "result": expression,
            "output": output,
        }
        place.mkdir(exist_ok=True)
        file = place / "recipe.yaml"
        file.write_text(json.dumps(recipe))  # which every YAML 1.2 parser reads
        return file

    def planned(
        self, expression: Expression, models: Mapping[str, Tensors], *, dtype: str | None = None
    ) -> Plan:
        """The plan of such a recipe."""
        return api.plan(self.recipe(expression, models, dtype=dtype))

    def merged(
        self,
        expression: Expression,
        models: Mapping[str, Tensors],
        *,
        dtype: str | None = None,
        threads: int | None = 1,
        max_memory: int | None = None,
    ) -> Tensors:
        """The tensors of such a recipe's result."""
        plan = self.planned(expression, models, dtype=dtype)
        made = api.apply(plan, threads=threads, max_memory=max_memory)
        assert made.path is not None
        return read_tensors(made.path)

    def notes(self, expression: Expression, models: Mapping[str, Tensors]) -> tuple[str, ...]:
        """What the run of such a recipe has to say of its coefficients."""
        return api.apply(self.planned(expression, models), threads=1).notes


def layer(shapes: Mapping[str, tuple[int, ...]], *, dtype: str = "F32", seed: int = 0) -> Tensors:
    """Random normal tensors that are the one layer of a model, by the last part of their names."""
    random = np.random.default_rng(seed)
    return in_layer({name: random.standard_normal(shape) for name, shape in shapes.items()}, dtype)


def in_layer(tensors: Mapping[str, Any], dtype: str = "F32") -> Tensors:
    """Values as the tensors of a model of one layer, rounded to a dtype of the format."""
    return {
        f"model.layers.0.{name}": np.asarray(values).astype(NUMPY_DTYPES[dtype])
        for name, values in tensors.items()
    }


def stored(folder: Path, name: str) -> NDArray[Any]:
    """A tensor of a checkpoint that is one file, without reading the others."""
    path = folder / "model.safetensors"
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entry = json.loads(file.read(length))[name]
        begin, end = entry["data_offsets"]
        file.seek(8 + length + begin)
        data = file.read(end - begin)
    return np.frombuffer(data, NUMPY_DTYPES[entry["dtype"]]).reshape(entry["shape"])


def tuned(
    base: Tensors, *, seed: int, scale: float = 0.02, density: float = 1.0, shared: int | None = 7
) -> Tensors:
    """A base after training: every tensor plus a random task vector, in the base's dtypes.

    Args:
        base: the tensors to start from.
        seed: decides the task vector.
        scale: its standard deviation, where it is not zero.
        density: share of its elements that are not zero.
        shared: seed of a second task vector, half as large, that models have in common; so that
            their angle is less than a right one. None for none.
    """
    own, common = np.random.default_rng(seed), np.random.default_rng(shared)
    made = {}
    for name, values in base.items():
        delta = scale * own.standard_normal(values.shape)
        delta *= own.random(values.shape) < density
        if shared is not None:
            delta += 0.5 * scale * common.standard_normal(values.shape)
        made[name] = (values.astype(np.float64) + delta).astype(values.dtype)
    return made


def tiny_models(
    names: Sequence[str], *, dtype: str = "BF16", depth: int = 2, density: float = 1.0
) -> dict[str, Tensors]:
    """Llamas of a few layers: the first one random, the others tuned from it."""
    base = llama_tensors(depth, hidden=HIDDEN, dtype=dtype)
    others = {
        name: tuned(base, seed=seed, density=density) for seed, name in enumerate(names[1:], 1)
    }
    return {names[0]: base, **others}


def _depth(tensors: Tensors) -> int:
    layers = {name.split(".")[2] for name in tensors if name.startswith("model.layers.")}
    return max(1, len(layers))
