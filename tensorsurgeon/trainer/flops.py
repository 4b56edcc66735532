"""How much arithmetic a token takes, and what devices can do. Pure."""

import re
from collections.abc import Sequence

from tensorsurgeon.trainer.groups import Parameter

_PEAKS: tuple[tuple[str, float | None, float | None], ...] = (
    ("H200 NVL", 835e12, 60e12),
    ("H200", 989e12, 67e12),
    ("H100 NVL", 835e12, 60e12),
    ("H100 PCIe", 756e12, 51e12),
    ("H100", 989e12, 67e12),
    ("GH200", 989e12, 67e12),
    ("B200", 2250e12, None),
    ("B100", 1750e12, None),
    ("A100", 312e12, 19.5e12),
    ("A800", 312e12, 19.5e12),
    ("L40S", 362e12, 91.6e12),
    ("L4", 121e12, 30.3e12),
    ("A10", 125e12, 31.2e12),
    ("RTX 4090", 165e12, 82.6e12),
    ("RTX 3090", 71e12, 35.6e12),
    ("V100-SXM2", None, 15.7e12),
    ("V100-PCIE", None, 14e12),
    ("T4", None, 8.1e12),
)
"""Peaks that the makers state for dense matrix products in bfloat16 and in float32 (not TF32, which
the trainer does not use), in FLOP/s; None where there are none, or none that the maker's papers
agree on. The first name that is in the device's counts."""

_LESS = re.compile(r"\b(MIG|Laptop|Max-Q|Ti|D)\b")
"""Of a device that is not the one of the rest of its name, or a part of it."""


def stated_peak(device_name: str, precision: str) -> float | None:
    """The peak its maker states, in FLOP/s; None for a device that is not known here.

    Args:
        device_name: as torch tells it.
        precision: of the computation, bfloat16 or float32.
    """
    if _LESS.search(device_name):
        return None
    for name, half, single in _PEAKS:
        if re.search(rf"\b{name}\b", device_name):  # whole words: an RTX A1000 is no A100
            return half if precision == "bfloat16" else single
    return None


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
