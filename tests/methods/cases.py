"""Every method with several parameters: as a recipe has it, as mergekit does, and as a formula."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.cli.checkpoints import Tensors
from tests.methods import references
from tests.methods.folders import tuned
from tests.methods.numerics import float64
from tests.methods.references import Float64

Reference = Callable[[Float64, list[Float64]], Float64]
"""A method's formula: of the base and the other models."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One method with certain parameters, over `base` and the models `m1`, `m2`, …

    Attributes:
        expression: as a recipe has it.
        count: how many models there are beside the base.
        reference: the formula.
        method: what mergekit calls it; None where it has no such method.
        parameters: mergekit's.
        based: whether mergekit is given the base as well.
        rooted: whether mergekit calls the first model the base, since it wants one.
        in_float32: whether mergekit computes on bfloat16 tensors in float32.
        idempotent: whether models that are all the same come back.
    """

    expression: Mapping[str, Any]
    count: int
    reference: Reference
    method: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    based: bool = False
    rooted: bool = False
    in_float32: bool = False
    idempotent: bool = True

    @property
    def models(self) -> list[str]:
        """The names of the models that mergekit is given, the base first."""
        return ["base"] * self.based + _names(self.count)

    def inputs(self, base: Tensors, scale: float) -> dict[str, Tensors]:
        """The base, and models tuned from it by task vectors of a standard deviation."""
        others = {
            name: tuned(base, seed=seed, scale=scale)
            for seed, name in enumerate(_names(self.count), 1)
        }
        return {"base": base, **others}

    def exact(self, inputs: Mapping[str, Tensors], name: str) -> Float64:
        """What a tensor of the result should be, by the formula."""
        base, *others = (float64(tensors[name]) for tensors in inputs.values())
        return self.reference(base, others)


def _names(count: int) -> list[str]:
    return [f"m{i + 1}" for i in range(count)]


def _by_model(weights: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(_names(len(weights)), weights, strict=True))


def linear(*weights: float, normalize: bool = True) -> Case:
    body = {"models": _names(len(weights)), "weights": weights, "normalize": normalize}
    return Case(
        expression={"linear": body},
        count=len(weights),
        reference=lambda base, models: references.linear(models, weights, normalize=normalize),
        method="linear",
        parameters={"weight": _by_model(weights), "normalize": normalize},
        in_float32=True,
        idempotent=normalize,
    )


def task_arithmetic(*weights: float, normalize: bool = False, lambda_: float = 1.0) -> Case:
    models = {"base": "base", "models": _names(len(weights)), "weights": weights}
    return Case(
        expression={"task_arithmetic": {**models, "normalize": normalize, "lambda": lambda_}},
        count=len(weights),
        reference=lambda base, models: references.task_arithmetic(
            base, models, weights, normalize=normalize, lambda_=lambda_
        ),
        method="task_arithmetic",
        parameters={"weight": _by_model(weights), "normalize": normalize, "lambda": lambda_},
        based=True,
    )


def add_difference(alpha: float) -> Case:
    body = {"model": "m1", "plus": "m2", "minus": "base", "alpha": alpha}
    return Case(
        expression={"add_difference": body},
        count=2,
        reference=lambda base, models: models[0] + alpha * (models[1] - base),
    )


def slerp(t: float) -> Case:
    return Case(
        expression={"slerp": {"models": _names(2), "t": t}},
        count=2,
        reference=lambda base, models: references.slerp(*models, t),
        method="slerp",
        parameters={"t": t},
        rooted=True,
        in_float32=True,
    )


def nuslerp(*weights: float, based: bool = False) -> Case:
    origin = {"base": "base"} if based else {}
    return Case(
        expression={"nuslerp": {"models": _names(2), "weights": weights, **origin}},
        count=2,
        reference=lambda base, models: references.nuslerp(models, weights, base if based else None),
        method="nuslerp",
        parameters={"weight": _by_model(weights)},
        based=based,
    )


def multislerp(*weights: float, based: bool = False, normalize: bool = True) -> Case:
    origin = {"base": "base"} if based else {}
    body = {"models": _names(len(weights)), "weights": weights, "normalize": normalize, **origin}
    return Case(
        expression={"multislerp": body},
        count=len(weights),
        reference=lambda base, models: references.multislerp(
            models, weights, base if based else None, normalize=normalize
        ),
        method="multislerp",
        parameters={"weight": _by_model(weights), "normalize_weights": normalize},
        based=based,
        idempotent=normalize or based,
    )


def karcher(count: int, weights: tuple[float, ...] = ()) -> Case:
    """mergekit's has no weights."""
    ending = {"max_iter": 60, "tol": 1e-15}
    given = {"weights": weights} if weights else {}
    return Case(
        expression={"karcher": {"models": _names(count), **given, **ending}},
        count=count,
        reference=lambda base, models: references.karcher(models, weights or (1.0,) * count),
        method=None if weights else "karcher",
        parameters=ending,
    )


def geometric_median(*weights: float) -> Case:
    body = {"models": _names(len(weights)), "weights": weights, "tol": 1e-12, "max_iter": 5000}
    return Case(
        expression={"geometric_median": body},
        count=len(weights),
        reference=lambda base, models: references.geometric_median(models, weights),
    )


def model_stock(count: int) -> Case:
    return Case(
        expression={"model_stock": {"models": _names(count), "base": "base"}},
        count=count,
        reference=references.model_stock,
        method="model_stock",
        based=True,
    )


CASES: Mapping[str, Case] = {
    "linear of two": linear(1, 1),
    "linear of three by weights": linear(0.2, 0.5, 1.1),
    "linear of five, one negative": linear(1, 0.3, -0.4, 2, 0.7),
    "linear of four, weights as they are": linear(0.4, -0.2, 0.3, 0.1, normalize=False),
    "task arithmetic of one": task_arithmetic(0.6),
    "task arithmetic of two": task_arithmetic(0.5, 0.8),
    "task arithmetic of three, one forgotten, half": task_arithmetic(0.4, -0.3, 0.9, lambda_=0.5),
    "task arithmetic of four, normalised": task_arithmetic(1, 2, 3, 0.5, normalize=True),
    "task arithmetic of five, normalised, more": task_arithmetic(
        1, 2, -0.5, 0.5, 1, normalize=True, lambda_=1.7
    ),
    "chat vector": add_difference(1.0),
    "extrapolation": add_difference(0.3),
    "difference taken away": add_difference(-0.7),
    "slerp near the first": slerp(0.1),
    "slerp halfway": slerp(0.5),
    "slerp near the second": slerp(0.83),
    "nuslerp": nuslerp(1, 3),
    "nuslerp of task vectors": nuslerp(0.7, 0.3, based=True),
    "nuslerp beyond the end": nuslerp(2, -0.5),
    "nuslerp beyond the end, of task vectors": nuslerp(-0.2, 1, based=True),
    "nuslerp by weights of no sum": nuslerp(0.5, -0.5),
    "multislerp of two": multislerp(1, 1),
    "multislerp of three": multislerp(0.2, 0.3, 0.5),
    "multislerp of five, one negative": multislerp(1, 1, 0.5, 2, -0.5),
    "multislerp of three, weights as they are": multislerp(0.5, 0.4, 0.3, normalize=False),
    "multislerp of two task vectors": multislerp(1, 2, based=True),
    "multislerp of four task vectors": multislerp(1, 2, 0.3, 1, based=True),
    "multislerp of three task vectors, weights as they are": multislerp(
        0.5, -0.2, 0.9, based=True, normalize=False
    ),
    "karcher of two": karcher(2),
    "karcher of three": karcher(3),
    "karcher of five": karcher(5),
    "karcher of four by weights": karcher(4, (1, 0.2, 3, 0.5)),
    "geometric median of three": geometric_median(1, 1, 1),
    "geometric median of four by weights": geometric_median(1, 0.5, 0.7, 1.2),
    "geometric median of five": geometric_median(1, 1, 1, 1, 1),
    "model stock of two": model_stock(2),
    "model stock of three": model_stock(3),
    "model stock of five": model_stock(5),
}

IN_MERGEKIT = {name: case for name, case in CASES.items() if case.method is not None}
"""The cases that mergekit can be asked about."""

ONE_OF_EACH = {next(iter(case.expression)): case for case in CASES.values()}
"""A case of each method, by its name here."""
