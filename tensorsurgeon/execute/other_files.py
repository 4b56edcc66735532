"""What lies beside the shards: files of the sources, the index, JSON as transformers writes it."""

import json
from typing import Any

from tensorsurgeon.errors import CheckpointError
from tensorsurgeon.plan import Plan, SidecarFile


def content_of(sidecar: SidecarFile) -> bytes:
    """The bytes of a file that goes along.

    Raises:
        CheckpointError: it cannot be read any more.
    """
    if sidecar.data is not None:
        return sidecar.data
    try:
        return sidecar.path.read_bytes()
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise CheckpointError(what, where=str(sidecar.path)) from None


def index_of(plan: Plan) -> dict[str, Any]:
    """Which shard each tensor is in."""
    weight_map = {spec.name: shard.name for shard in plan.shards for spec in shard.specs}
    size = sum(spec.nbytes for shard in plan.shards for spec in shard.specs)
    return {
        "metadata": {"total_size": size, "total_parameters": plan.parameters},
        "weight_map": dict(sorted(weight_map.items())),
    }


def json_bytes(value: object) -> bytes:
    """A JSON file."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
