"""Checkpoints of one training, averaged."""

import math
import posixpath
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    PlainValidator,
    StrictInt,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tensorsurgeon.documents import kind_of
from tensorsurgeon.operators.families import Coefficients, SumOperator
from tensorsurgeon.recipe import Source
from tensorsurgeon.recipe.expression import ParseContext

_DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda x: (1.0 + math.cos(math.pi * x)) / 2.0,
    "minus_sqrt": lambda x: 1.0 - math.sqrt(x),
}
"""Learning rates over a decay that lasts from 0 to 1, as shares of the rate before it."""


def _read_checkpoints(raw: Any, info: ValidationInfo) -> tuple[Source, ...]:
    """The sources that paths and patterns stand for, in order."""
    if isinstance(raw, tuple):
        return raw
    given = raw if isinstance(raw, list) else [raw]
    context = info.context
    assert isinstance(context, ParseContext)
    found: dict[str, Source] = {}
    for index, name in enumerate(given):
        place = {"index": index} if isinstance(raw, list) else {}
        if not isinstance(name, str) or not name:
            what = f"a folder, or a pattern that matches several, not {kind_of(name)}"
            raise PydanticCustomError("checkpoints", "{what}", {"what": what, **place})
        paths = context.matching(name) if "*" in name or "?" in name else [str(name)]
        if not paths:
            what = f"no folder matches '{name}', which is relative to the recipe"
            raise PydanticCustomError("checkpoints", "{what}", {"what": what, **place})
        for path in paths:
            folder = posixpath.normpath(path)
            if folder in found:
                what = f"'{path}' is there twice"
                raise PydanticCustomError("checkpoints", "{what}", {"what": what, **place})
            found[folder] = Source.at(path, getattr(name, "mark", None))
    if not found:
        raise PydanticCustomError("checkpoints", "an empty list names no checkpoint", {})
    return tuple(found.values())


Checkpoints = Annotated[
    tuple[Source, ...],
    PlainValidator(_read_checkpoints),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "examples": ["runs/step-*"]},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        }
    ),
]


class CheckpointAverage(SumOperator):
    """Checkpoints of one training averaged, as if its learning rate had decayed.

    The checkpoints lie at even distances, and the oldest comes first. `uniform` is LAWA (Kaddour
    2022, arXiv:2209.14981; Sanyal et al. 2023, arXiv:2306.03241). `ema` starts at the oldest, and
    at each further one is decay times itself plus (1 - decay) times that. The others stand for a
    decay of the learning rate that never was (WSM, Tian et al. 2025, arXiv:2507.17634): where the
    rate was constant, checkpoint j of n (from 0) with the weight f(j / n) - f((j + 1) / n) gives
    the model that has taken the updates between checkpoints i - 1 and i times f(i / n). `linear`
    has f(x) = 1 - x, which is the uniform average; `cosine` has (1 + cos(pi x)) / 2, and
    `minus_sqrt` 1 - sqrt(x) (Hägele et al. 2024, arXiv:2405.18392).
    """

    operator: ClassVar[str] = "checkpoint_average"
    body: ClassVar[str | None] = "checkpoints"
    example: ClassVar[str] = (
        "{checkpoint_average: {checkpoints: runs/step-*, weights: minus_sqrt, last: 8}}"
    )
    idempotent: ClassVar[bool] = True

    checkpoints: Checkpoints = Field(
        description="the folders, as a path with * for what differs, or a list of paths or "
        "repositories; of those that a * matches, the one with the larger number is the newer"
    )
    weights: Literal["uniform", "ema", "linear", "cosine", "minus_sqrt"] = Field(
        default="uniform", description="how much each counts"
    )
    decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="of `ema`: what is kept of the average at each checkpoint"
    )
    last: Annotated[StrictInt, Field(ge=1)] | None = Field(
        default=None, description="only so many of the newest; all by default"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.decay is None) == (self.weights == "ema"):
            what = "'ema' needs a decay" if self.decay is None else "only 'ema' has a decay"
            raise PydanticCustomError("decay", "{what}", {"what": what})
        count = len(self.checkpoints)
        if self.last is not None:
            if self.last > count:
                raise PydanticCustomError(
                    "last",
                    "the last {last} are asked for, and there are {count} checkpoints",
                    {"last": self.last, "count": count},
                )
            object.__setattr__(self, "checkpoints", self.checkpoints[count - self.last :])
        return self

    def coefficients(self) -> Coefficients:
        """The weight of each checkpoint; together they are 1."""
        count = len(self.checkpoints)
        if self.decay is not None:
            kept = [self.decay**age for age in reversed(range(count))]
            return Coefficients((kept[0], *((1.0 - self.decay) * share for share in kept[1:])))
        if self.weights not in _DECAYS:
            return Coefficients((1.0 / count,) * count)
        rates = [_DECAYS[self.weights](j / count) for j in range(count)] + [0.0]
        return Coefficients(tuple(before - after for before, after in pairwise(rates)))
