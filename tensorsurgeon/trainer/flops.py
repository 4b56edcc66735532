"""How much arithmetic a token takes, and what devices can do. Pure."""

import re
from collections.abc import Sequence

from tensorsurgeon.trainer.groups import Parameter

_PEAKS = (
    ("H200", 989e12),
    ("H100 NVL", 835e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("GH200", 989e12),
    ("B200", 2250e12),
    ("B100", 1750e12),
    ("A100", 312e12),
    ("A800", 312e12),
    ("L40S", 362e12),
    ("L4", 121e12),
    ("A10", 125e12),
    ("RTX 4090", 165e12),
    ("RTX 3090", 71e12),
    ("V100", 125e12),
    ("T4", 65e12),
)
"""Peaks that the makers state for dense matrix products in bfloat16 (V100, T4: float16), in FLOP/s;
the first name that is in the device's counts."""


def stated_peak(device_name: str) -> float | None:
    """The peak its maker states, in FLOP/s; None for a device that is not known here."""
    # Whole words: an RTX A1000 is no A100.
    found = (peak for name, peak in _PEAKS if re.search(rf"\b{name}\b", device_name))
    return next(found, None)


def flops_per_token(
    parameters: Sequence[Parameter],
    *,
    layers: int,
    width: int,
    sequence_length: int,
    active_experts: float = 1.0,
) -> float:
    """FLOPs of a token, forward and backward: 6N + 12·L·d·T (Chowdhery et al. 2022, PaLM, app. B).

    N are the parameters that are multiplied with: an embedding that is not the head as well only
    looks tokens up. All attention is counted, as the formula does, though half of it is masked; and
    frozen parameters are counted as those that are trained.

    Args:
        parameters: of the model.
        layers: L.
        width: d, of the hidden states.
        sequence_length: T, in tokens.
        active_experts: share of a layer's experts that a token goes through.
    """
    multiplied = sum(
        p.elements * (active_experts if ".experts." in p.name else 1.0)
        for p in parameters
        if p.roles != {"embeddings"}
    )
    return 6.0 * multiplied + 12.0 * layers * width * sequence_length
