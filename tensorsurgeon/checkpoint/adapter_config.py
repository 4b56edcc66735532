"""A LoRA adapter's adapter_config.json, as PEFT writes it: what changes numbers is understood.

PEFT adds settings with every release. One that is not known here and is set to anything is refused,
since it may say that the adapter means other weights than the formula gives.
"""

import math
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)

from tensorsurgeon.errors import CheckpointError, Problem, shortened

ADAPTER_CONFIG = "adapter_config.json"

APPLY_IT = "apply it to the model it was trained over: {lora: {model: …, adapter: …}}"
"""What to do with an adapter that is named as a model."""

MERGE_IT = "merge it into its base with PEFT, and use the folder that saves"
"""What to do about an adapter that is none of those read here."""

_WITHOUT_EFFECT = frozenset(
    {
        "auto_mapping",
        "bias",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_bias",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "modules_to_save",
        "peft_version",
        "qalora_group_size",
        "revision",
        "target_modules",
        "task_type",
    }
)
"""Settings of the training, and those that the tensors' names tell as well."""

_KEEPS_BASE = (None, True, False, "true", "gaussian", "eva", "orthogonal", "mica")
"""Initialisations that leave the base as it is; others subtract from it what they begin with."""

_PLAIN = re.compile(r"\^?(?:[\w-]|\\?\.)+\$?", re.ASCII)
"""A pattern that is the name of a module or the end of one."""

_Alpha = Annotated[StrictInt | StrictFloat, Field(ge=-1e15, le=1e15)]
_Rank = Annotated[StrictInt, Field(ge=1, le=1 << 31)]


class AdapterConfig(BaseModel):
    """What an adapter's config says of its tensors.

    Attributes:
        r: the rank of modules that `rank_pattern` does not name.
        lora_alpha: numerator of the scale, of modules that `alpha_pattern` does not name.
        base_model_name_or_path: the model it was trained over, as whoever trained it called it.
        fan_in_fan_out: whether weights are stored as (in, out).
        use_rslora: whether the scale is alpha over the root of the rank (Kalajdzievski 2023).
        use_dora: whether there are magnitudes (Liu et al. 2024).
        rank_pattern: ranks by the ends of modules' names.
        alpha_pattern: alphas by the ends of modules' names; the first that matches counts.
        ensure_weight_tying: whether a head that is tied to the embedding stays so.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    peft_type: StrictStr
    r: _Rank
    lora_alpha: _Alpha
    base_model_name_or_path: StrictStr | None = None
    fan_in_fan_out: StrictBool | None = False
    use_rslora: StrictBool | None = False
    use_dora: StrictBool | None = False
    rank_pattern: dict[str, _Rank] | None = None
    alpha_pattern: dict[str, _Alpha] | None = None
    init_lora_weights: StrictBool | StrictStr | None = True
    ensure_weight_tying: StrictBool | None = False

    def scale_of(self, module: str, rank: int) -> float:
        """The factor of B A in a module: alpha / rank, or alpha / sqrt(rank)."""
        alpha = float(self._alpha_of(module))
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank

    @property
    def ranks(self) -> frozenset[int]:
        """The ranks that its tensors may have."""
        return frozenset({self.r, *(self.rank_pattern or {}).values()})

    def _alpha_of(self, module: str) -> int | float:
        parts = module.split(".")
        names = [".".join(parts[first:]) for first in range(len(parts))]
        found = [self._alphas[name] for name in (f"^{module}", *names) if name in self._alphas]
        return min(found)[1] if found else self.lora_alpha

    @cached_property
    def _alphas(self) -> dict[str, tuple[int, int | float]]:
        """Each pattern's place and alpha, by the end of a name, or `^` and the whole of it."""
        alphas: dict[str, tuple[int, int | float]] = {}
        for place, (pattern, alpha) in enumerate((self.alpha_pattern or {}).items()):
            name = pattern.removesuffix("$").replace("\\.", ".")
            alphas.setdefault(name, (place, alpha))
        return alphas


def parse_adapter_config(config: Mapping[str, Any], path: Path) -> AdapterConfig:
    """Understand an adapter's config.

    Args:
        config: adapter_config.json.
        path: the file, for errors.

    Raises:
        CheckpointError: it is of another method than LoRA, lacks what the formula needs, or has a
            setting that is not understood.
    """
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(
            f"is of an adapter of type {shortened(str(kind))}, and those of type LORA are read",
            where=str(path),
            fix=MERGE_IT,
        )
    kept = {
        key: value
        for key, value in config.items()
        if key in AdapterConfig.model_fields or not (key in _WITHOUT_EFFECT or _is_nothing(value))
    }
    try:
        found = AdapterConfig.model_validate(kept)
    except ValidationError as error:
        raise CheckpointError.of(_problems(error, path)) from None
    if found.init_lora_weights not in _KEEPS_BASE:
        raise CheckpointError(
            f"init_lora_weights is '{shortened(str(found.init_lora_weights))}': the adapter was "
            "trained over weights that this had changed, not over its base's",
            where=str(path),
            fix="save it with PEFT's path_initial_model_for_weight_conversion, which makes an "
            "adapter of the base; or set it to true where the model here is the changed one",
        )
    for pattern in found.alpha_pattern or {}:
        if not _PLAIN.fullmatch(pattern):
            raise CheckpointError(
                f"alpha_pattern: '{shortened(pattern)}' is more than the end of a module's name",
                where=str(path),
                fix="write one entry for each module",
            )
    return found


def _is_nothing(value: Any) -> bool:
    """Whether a setting's value says that it is not used."""
    return value is None or value is False or value in ("", 0) or value == {} or value == []


def _problems(error: ValidationError, path: Path) -> Iterable[Problem]:
    """What pydantic found, in our words, each once."""
    found: dict[Problem, None] = {}
    for details in error.errors(include_url=False):
        # Where several kinds of numbers are allowed, the last step tells which one it is not.
        steps = [str(step) for step in details["loc"] if step not in ("int", "float")]
        key = shortened(".".join(steps))
        what, fix = f"'{key}' is {shortened(repr(details['input']), 40)}, which makes no sense", ""
        if details["type"] == "missing":
            what = f"lacks '{key}', which the adapter's scale follows from"
        if details["type"] == "extra_forbidden":
            what = f"sets '{key}', which is not known here and may change what the adapter means"
            fix = MERGE_IT
        found[Problem(where=str(path), what=what, fix=fix)] = None
    return found
