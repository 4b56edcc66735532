"""JSON beside the shards: the index, and any value in the form that transformers writes."""

import json
from collections.abc import Sequence
from typing import Any

from tensorsurgeon.checkpoint import Shard


def index_of(shards: Sequence[Shard]) -> dict[str, Any]:
    """Which shard each tensor is in."""
    weight_map = {spec.name: shard.name for shard in shards for spec in shard.specs}
    specs = [spec for shard in shards for spec in shard.specs]
    return {
        "metadata": {
            "total_size": sum(spec.nbytes for spec in specs),
            "total_parameters": sum(spec.elements for spec in specs),
        },
        "weight_map": dict(sorted(weight_map.items())),
    }


def json_bytes(value: object) -> bytes:
    """A JSON file."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
