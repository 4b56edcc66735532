"""What the manifest says of a run, and what binds a journal to its work."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tensorsurgeon import __version__
from tensorsurgeon.checkpoint import (
    ADAPTER_CONFIG,
    MANIFEST_NAME,
    FileIdentity,
    Manifest,
    encode_manifest,
    header_bytes,
    read_manifest,
)
from tensorsurgeon.errors import CheckpointError, ManifestError, printable
from tensorsurgeon.plan import Plan, origin_of


def binding_of(plan: Plan) -> str:
    """SHA-256 of all that decides which bytes a run writes: recipe, inputs, plan, version.

    The inputs stand in it as the file system knows them, so that a source written to or replaced
    between two runs makes the second a new work. The number of their file system is left out, since
    it may be another after a restart. Of a repository it is the commit that counts.
    """
    inputs = sorted(plan.inputs().items())
    commits = sorted((repo.name, repo.commit) for repo in plan.repos.values())
    parts: list[Any] = [
        __version__,
        plan.recipe_text,
        plan.seed,
        [[shard.name, hashlib.sha256(shard.header).hexdigest()] for shard in plan.shards],
        [[tensor.spec.name, origin_of(tensor.node)] for tensor in plan.tensors],
        plan.config,
        [[sidecar.name, _digest(sidecar.data)] for sidecar in plan.sidecars],
        [[own.name, _digest(own.data)] for own in plan.own_files if own.recorded],
        commits,
        [
            [str(path), found.nbytes, found.modified, found.inode]
            for path, found in inputs
            if isinstance(found, FileIdentity) and path.parent not in plan.repos
        ],
    ]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps(part).encode() + b"\n")
    return digest.hexdigest()


def _digest(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def make_manifest(
    plan: Plan,
    digests: Mapping[str, str],
    files: Mapping[str, Mapping[str, Any]],
    *,
    binding: str,
    run: str,
) -> Manifest:
    """The manifest of a finished run.

    Args:
        plan: what was run.
        digests: SHA-256 of each tensor.
        files: size and SHA-256 of each file beside the shards.
        binding: see `binding_of`.
        run: the run's own name.

    Raises:
        CheckpointError: a source cannot be read any more.
    """
    return Manifest(
        tensorsurgeon=__version__,
        recipe={
            "sha256": hashlib.sha256(plan.recipe_text.encode()).hexdigest(),
            "text": plan.shown_recipe,
        },
        seed=plan.seed,
        sources={name: _source(plan, name) for name in plan.sources},
        layer_map=tuple(
            {
                "sources": [[source.source, source.layer] for source in origin.sources],
                "new": origin.new,
                "seam": layer in plan.seams,
            }
            for layer, origin in enumerate(plan.layer_map)
        ),
        files=files,
        shards={
            shard.name: {
                "bytes": shard.nbytes,
                "header_bytes": len(shard.header),
                "header": hashlib.sha256(shard.header).hexdigest(),
            }
            for shard in plan.shards
        },
        tensors={
            tensor.spec.name: {
                "dtype": tensor.spec.dtype.value,
                "shape": list(tensor.spec.shape),
                "shard": tensor.shard,
                "offset": tensor.offset,
                "sha256": digests[tensor.spec.name],
                "origin": origin_of(tensor.node),
            }
            for tensor in plan.tensors
        },
        created={
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "binding": binding,
            "run": run,
        },
    )


def _source(plan: Plan, name: str) -> dict[str, Any]:
    """A source by what describes it: its commit, or digests of config, manifest and headers."""
    folder = plan.sources[name]
    config_name = "config.json" if name in plan.depths else ADAPTER_CONFIG
    shards = {
        path: identity
        for path, identity in sorted(plan.identities.items())
        if path.parent == folder and path.suffix == ".safetensors"
    }
    try:
        config = hashlib.sha256((folder / config_name).read_bytes()).hexdigest()
        if repo := plan.repos.get(folder):
            return {
                "repo": repo.name,
                "revision": repo.revision,
                "commit": repo.commit,
                "config": config,
                "files": {
                    path.name: {"bytes": shard.nbytes, "sha256": repo.files[path.name].sha256}
                    for path, shard in shards.items()
                },
            }
        return {
            "folder": printable(folder.name),
            "config": config,
            "manifest": _manifest_digest(folder / MANIFEST_NAME),
            "files": {
                path.name: {
                    "bytes": shard.nbytes,
                    "header": hashlib.sha256(header_bytes(path)).hexdigest(),
                }
                for path, shard in shards.items()
            },
        }
    except OSError as error:
        what = f"cannot be read any more: {error.strerror}"
        raise CheckpointError(what, where=str(error.filename or folder)) from None


def _manifest_digest(path: Path) -> str | None:
    """SHA-256 of a source's manifest but for when and how it was made; None without a sound one."""
    try:
        manifest = read_manifest(path)
    except ManifestError:
        return None
    timeless = replace(manifest, created=dict.fromkeys(manifest.created, ""))
    return hashlib.sha256(encode_manifest(timeless)).hexdigest()
