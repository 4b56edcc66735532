"""What is known of model families: which names belong to which layer, and their configs."""

from tensorsurgeon.arch.architecture import Architecture, find_architecture
from tensorsurgeon.arch.config_surgery import (
    LayerSource,
    config_with_layers,
    config_with_weights,
    without_code,
)

__all__ = [
    "Architecture",
    "LayerSource",
    "config_with_layers",
    "config_with_weights",
    "find_architecture",
    "without_code",
]
