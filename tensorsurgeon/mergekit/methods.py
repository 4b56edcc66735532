"""mergekit's merge methods, their parameters, and what each is called in our recipes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal


class Scope(Enum):
    """Whose a parameter is."""

    MERGE = auto()
    """The whole merge's; mergekit ignores it at a single model."""

    MODEL = auto()
    """Each model's."""

    TUNED = auto()
    """Each model's but the base's; mergekit ignores it at the base."""


class Form(Enum):
    """What a parameter becomes in a recipe."""

    SCHEDULE = auto()
    """A schedule; of each model's one, a schedule for all or `each:` with one for each."""

    LIST = auto()
    """A list with one schedule for each model."""

    NUMBER = auto()
    """One number for the whole merge."""

    COUNT = auto()
    """One whole number for the whole merge."""

    SWITCH = auto()
    """One of two values for the whole merge."""

    NOTHING = auto()
    """It changes no number that matters here: it is left out, and that is said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """A parameter of a method of mergekit's.

    Attributes:
        name: in mergekit.
        ours: in our recipes; why it has no place there, if it is left out.
        scope: whose it is.
        form: what it becomes.
        default: where mergekit's document has no value; None where it must have one.
        least: the smallest value allowed here.
        most: the largest.
        switch: what true and false become.
        only_with: another switch, and the value without which mergekit ignores this one.
    """

    name: str
    ours: str
    scope: Scope = Scope.MERGE
    form: Form = Form.SCHEDULE
    default: float | bool | None = None
    least: float = -math.inf
    most: float = math.inf
    switch: Mapping[bool, bool | str] = field(default_factory=lambda: {True: True, False: False})
    only_with: tuple[str, bool] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A method of mergekit's.

    Attributes:
        name: in mergekit, and of our operator.
        base: whether it needs a base, may have one, or knows none.
        base_is: the key of the base in our recipes; `first` where it is the first of `models`.
        models: the key of the other models; `model` where it is one.
        least: fewest models beside a base.
        most: most of them.
        parameters: what can be set.
    """

    name: str
    base: Literal["required", "optional", "none"] = "none"
    base_is: Literal["base", "first"] = "base"
    models: Literal["models", "model"] = "models"
    least: int = 1
    most: int | None = None
    parameters: tuple[Parameter, ...] = ()

    def parameter(self, name: str) -> Parameter | None:
        """The parameter of a name in mergekit."""
        return next((one for one in self.parameters if one.name == name), None)


_WEIGHT = Parameter(name="weight", ours="weights", scope=Scope.TUNED, form=Form.LIST)
_WEIGHT_OF_ALL = Parameter(name="weight", ours="weights", scope=Scope.MODEL, form=Form.LIST)
_T = Parameter(name="t", ours="t")
_EPSILON = Parameter(name="epsilon", ours="epsilon", default=1e-5, least=0.0)
_MASK = Parameter(
    name="int8_mask", ours="masks take no memory here", form=Form.NOTHING, default=False
)
_DENSITY = Parameter(
    name="density", ours="density", scope=Scope.TUNED, default=1.0, least=0.0, most=1.0
)
_GAMMA = Parameter(name="gamma", ours="gamma", scope=Scope.TUNED, default=0.01, least=0.0, most=1.0)
_SPREAD = Parameter(
    name="epsilon", ours="epsilon", scope=Scope.TUNED, default=0.15, least=0.0, most=1.0
)


def _normalize(default: bool, name: str = "normalize") -> Parameter:
    return Parameter(name=name, ours="normalize", form=Form.SWITCH, default=default)


def _task_vectors(
    name: str, *pruning: Parameter, normalize: bool = False, rescale: bool = False
) -> Method:
    """A method that adds pruned task vectors; without pruning there is nothing to rescale."""
    how = Parameter(
        name="rescale",
        ours="rescale",
        form=Form.SWITCH,
        default=rescale,
        switch={True: "l1", False: "none"},
    )
    return Method(
        name=name,
        base="required",
        parameters=(
            _WEIGHT,
            *pruning,
            *((how,) if pruning else ()),
            _normalize(normalize),
            Parameter(name="lambda", ours="lambda", default=1.0),
            _MASK,
        ),
    )


_LISTED = (
    Method(name="linear", parameters=(_WEIGHT_OF_ALL, _normalize(True))),
    Method(
        name="slerp",
        base="required",
        base_is="first",
        most=1,
        parameters=(Parameter(name="t", ours="t", least=0.0, most=1.0),),
    ),
    Method(
        name="nuslerp",
        base="optional",
        least=2,
        most=2,
        parameters=(
            _WEIGHT,
            Parameter(
                name="nuslerp_flatten",
                ours="along",
                form=Form.SWITCH,
                default=True,
                switch={True: "tensor", False: "rows"},
            ),
            Parameter(
                name="nuslerp_row_wise",
                ours="along",
                form=Form.SWITCH,
                default=False,
                switch={True: "columns", False: "rows"},
                only_with=("nuslerp_flatten", False),
            ),
        ),
    ),
    Method(
        name="multislerp",
        base="optional",
        parameters=(
            _WEIGHT,
            _normalize(True, "normalize_weights"),
            Parameter(
                name="eps",
                ours="nothing is divided by a length that could be zero",
                form=Form.NOTHING,
                default=1e-8,
            ),
        ),
    ),
    Method(
        name="karcher",
        parameters=(
            Parameter(name="max_iter", ours="max_iter", form=Form.COUNT, default=10, least=1),
            Parameter(name="tol", ours="tol", form=Form.NUMBER, default=1e-5, least=0.0),
        ),
    ),
    Method(
        name="model_stock",
        base="required",
        least=2,
        parameters=(
            Parameter(name="filter_wise", ours="filter_wise", form=Form.SWITCH, default=False),
        ),
    ),
    Method(
        name="passthrough",
        models="model",
        most=1,
        parameters=(Parameter(name="scale", ours="scale", scope=Scope.MODEL, default=1.0),),
    ),
    _task_vectors("task_arithmetic"),
    _task_vectors("ties", _DENSITY, normalize=True),
    _task_vectors("dare_linear", _DENSITY, rescale=True),
    _task_vectors("dare_ties", _DENSITY, rescale=True),
    _task_vectors("breadcrumbs", _DENSITY, _GAMMA),
    _task_vectors("breadcrumbs_ties", _DENSITY, _GAMMA),
    _task_vectors("della", _DENSITY, _SPREAD, normalize=True, rescale=True),
    _task_vectors("della_linear", _DENSITY, _SPREAD, rescale=True),
    Method(
        name="sce",
        base="required",
        parameters=(
            Parameter(name="select_topk", ours="select_topk", default=1.0, least=0.0, most=1.0),
            _MASK,
        ),
    ),
    Method(name="arcee_fusion", base="required", models="model", most=1),
    Method(name="nearswap", base="required", models="model", most=1, parameters=(_T,)),
    Method(name="ram", base="required", parameters=(_EPSILON,)),
    Method(
        name="ramplus_tl",
        base="required",
        parameters=(
            Parameter(name="r", ours="r", default=0.1),
            Parameter(name="alpha", ours="alpha", default=0.2),
            _EPSILON,
        ),
    ),
)

METHODS: Mapping[str, Method] = {method.name: method for method in _LISTED}
"""Every method of mergekit 0.1.5, by its name."""
