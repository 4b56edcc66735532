"""Plans, checkpoints and results as text for people and as JSON for programs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tensorsurgeon.checkpoint import Checkpoint
from tensorsurgeon.errors import printable
from tensorsurgeon.execute import Result
from tensorsurgeon.plan import Plan
from tensorsurgeon.specs import LayerOrigin, SourceLayer, size_text


@dataclass(frozen=True, kw_only=True)
class Fetching:
    """How a plan gets what is not here.

    Attributes:
        free: bytes free where the cache is; None where that is not known.
        streams: whether tensors are streamed since the cache has no room.
        spool: most bytes of temporary files beside the output, where they are.
    """

    free: int | None = None
    streams: bool = False
    spool: int = 0


def plan_text(
    plan: Plan, *, threads: int, memory: int, free: int | None, fetching: Fetching = Fetching()
) -> str:
    """A plan for people."""
    copied = sum(tensor.is_copied for tensor in plan.tensors)
    shards = plan.shards
    files = shards[0].name if len(shards) == 1 else f"{len(shards)} shards"
    disk = f" of {size_text(free)} free" if free is not None else ""
    rows = [
        ("recipe", plan.recipe),
        *((f"source {name}", _source(plan, path)) for name, path in plan.sources.items()),
        ("output", str(plan.destination) if plan.destination else "not named yet: give it with -o"),
        *([("pushed to", _pushed(plan))] if plan.push else []),
        ("files", f"{files}, config.json, {len(plan.sidecars) + len(plan.own_files)} others"),
        (
            "tensors",
            f"{len(plan.tensors)}: {copied} copied, {len(plan.tensors) - copied} computed",
        ),
        ("parameters", f"{plan.parameters:,}"),
        *(_fetched(plan, fetching) if plan.to_fetch() else ()),
        ("reads", size_text(plan.bytes_read)),
        ("writes", size_text(plan.bytes_written) + disk),
        ("memory", f"at most {size_text(memory)} with {threads} thread{'s' * (threads != 1)}"),
    ]
    width = max(len(label) for label, _ in rows)
    lines = [printable(f"{label:<{width}}  {value}") for label, value in rows]
    lines += ["", layer_map_text(plan)]
    lines += [printable(f"note: {note}") for note in plan.notes]
    return "\n".join(lines)


def _pushed(plan: Plan) -> str:
    repo = str(plan.push).removeprefix("hf://")
    return f"{repo}, shard by shard; none is kept" if plan.push_only else repo


def _source(plan: Plan, folder: Path) -> str:
    repo = plan.repos.get(folder)
    return f"{repo.name}@{repo.commit}" if repo else str(folder)


def _fetched(plan: Plan, fetching: Fetching) -> Iterator[tuple[str, str]]:
    lacking = plan.to_fetch()
    total = size_text(sum(file.nbytes for file in lacking.values()))
    what = f"{total} in {len(lacking)} file{'s' * (len(lacking) != 1)}"
    free = f" of {size_text(fetching.free)} free" if fetching.free is not None else ""
    lost = dict.fromkeys(plan.repos[path.parent].lost for path in lacking)
    if why := "; ".join(filter(None, lost)):
        yield "lacks", f"{what}, not in the cache, and {why}"
        return
    if fetching.streams:
        yield "streams", f"{what}: the cache has no room for that beside the result{free}"
    else:
        yield "fetches", f"{what}, to the cache{free}"
    if fetching.spool:
        when = "" if fetching.streams else "with --stream "
        yield "spools", f"{when}at most {size_text(fetching.spool)} at a time, beside the output"


def plan_json(
    plan: Plan, *, threads: int, memory: int, free: int | None, fetching: Fetching = Fetching()
) -> dict[str, Any]:
    """A plan for programs; sizes and offsets are in bytes."""
    return {
        "recipe": plan.recipe,
        "sources": {name: str(path) for name, path in plan.sources.items()},
        "output": str(plan.destination) if plan.destination else None,
        "push": plan.push,
        "push_only": plan.push_only,
        "parameters": plan.parameters,
        "repos": {
            name: {"name": repo.name, "revision": repo.revision, "commit": repo.commit}
            for name, path in plan.sources.items()
            if (repo := plan.repos.get(path))
        },
        "fetched": {str(path): file.nbytes for path, file in sorted(plan.to_fetch().items())},
        "cache_free": fetching.free,
        "streams": fetching.streams,
        "spool_if_streamed": fetching.spool,
        "bytes_read": plan.bytes_read,
        "bytes_written": plan.bytes_written,
        "disk_free": free,
        "threads": threads,
        "memory": memory,
        "layer_map": [
            {
                "layer": layer,
                "sources": [{"source": s.source, "layer": s.layer} for s in origin.sources],
                "new": origin.new,
                "seam": layer in plan.seams,
            }
            for layer, origin in enumerate(plan.layer_map)
        ],
        "shards": [{"name": shard.name, "bytes": shard.nbytes} for shard in plan.shards],
        "tensors": [
            {
                "name": tensor.spec.name,
                "dtype": tensor.spec.dtype.value,
                "shape": list(tensor.spec.shape),
                "shard": tensor.shard,
                "offset": tensor.offset,
                "bytes": tensor.spec.nbytes,
                "bytes_read": tensor.bytes_read,
                "copied": tensor.is_copied,
                "expression": str(tensor.node),
            }
            for tensor in plan.tensors
        ],
        "config": dict(plan.config),
        "other_files": [*(s.name for s in plan.sidecars), *(own.name for own in plan.own_files)],
        "notes": list(plan.notes),
    }


def layer_map_text(plan: Plan) -> str:
    """Where each layer comes from, a line for each run of consecutive layers."""
    seams = plan.seams
    lines = [f"layer map: {len(plan.layer_map)} layers"]
    width = len(str(len(plan.layer_map) - 1))
    for start, stop in _runs(plan.layer_map):
        first, last = plan.layer_map[start], plan.layer_map[stop - 1]
        here = f"{start:>{width}}" + (
            f"-{stop - 1:<{width}}" if stop - start > 1 else " " * (width + 1)
        )
        inside = " + ".join(
            _stretch(a, b) for a, b in zip(first.sources, last.sources, strict=True)
        )
        marks = [word for word, on in (("seam", start in seams), ("new, zeroed", first.new)) if on]
        lines.append(printable(f"  {here}  {inside}" + (f"  ({', '.join(marks)})" * bool(marks))))
    return "\n".join(lines)


def _stretch(first: SourceLayer, last: SourceLayer) -> str:
    if first == last:
        return str(first)
    return f"{first.source}[{first.layer}-{last.layer}]"


def _runs(layer_map: Sequence[LayerOrigin]) -> Iterator[tuple[int, int]]:
    starts = [0] + [
        layer
        for layer in range(1, len(layer_map))
        if not layer_map[layer].follows(layer_map[layer - 1])
        or layer_map[layer].new != layer_map[layer - 1].new
    ]
    return pairwise([*starts, len(layer_map)])


def result_text(plan: Plan, result: Result, *, peak_memory: int | None) -> str:
    """What a run did, for people."""
    moved = plan.bytes_read + plan.bytes_written
    speed = size_text(int(moved / max(result.seconds, 1e-9)))
    rate = "" if result.tensors_resumed else f"{speed}/s read and written, "
    threads = f"{result.threads} thread{'s' * (result.threads != 1)}"
    lines = [
        f"{'sent' if result.path is None else f'wrote {result.path}:'} "
        f"{size_text(plan.bytes_written)} in {len(plan.shards)} "
        f"file{'s' * (len(plan.shards) != 1)}, {plan.parameters:,} parameters",
        f"{result.tensors_copied} tensors copied, {result.tensors_computed} computed in "
        f"{result.seconds:.2f} s ({rate}{threads})",
    ]
    if result.address:
        lines.append(f"pushed to {result.address}")
    if result.tensors_resumed:
        lines.append(f"of these, an interrupted run had made {result.tensors_resumed}")
    if result.update_lost is not None:
        dtypes = ", ".join(dict.fromkeys(t.spec.dtype.value for t in plan.tensors))
        lines.append(f"rounding to {dtypes} lost {result.update_lost:.2%} of the update")
    if peak_memory is not None:
        lines.append(f"peak memory {size_text(peak_memory)}")
    lines += [f"note: {note}" for note in (*plan.notes, *result.notes)]
    if result.tensors_computed and not result.compiled:
        lines.append(f"note: {_NOT_COMPILED}")
    return "\n".join(map(printable, lines))


_NOT_COMPILED = (
    "arithmetic ran in numpy, the same to the bit but slower; "
    "where there is a C compiler, installing tensorsurgeon compiles it"
)


def checkpoint_text(checkpoint: Checkpoint, depth: int | None, family: str) -> str:
    """A checkpoint's tensors as a table, and what they sum up to."""
    tensors = list(checkpoint.tensors.values())
    rows = [
        (
            printable(tensor.spec.name),
            tensor.spec.dtype.value,
            "x".join(map(str, tensor.spec.shape)) or "scalar",
            size_text(tensor.spec.nbytes),
            printable(tensor.path.name),
        )
        for tensor in tensors
    ]
    head = ("tensor", "dtype", "shape", "size", "file")
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    facts = checkpoint_json(checkpoint, depth, family)
    dtypes = ", ".join(
        f"{count:,} {dtype}" for dtype, count in facts["parameters_by_dtype"].items()
    )
    lines += [
        "",
        printable(
            f"{family or 'unknown family'}, {depth if depth is not None else 'unknown'} layers, "
            f"{len(tensors)} tensors in {facts['files']} "
            f"file{'s' * (facts['files'] != 1)}, {size_text(facts['bytes'])}"
        ),
        f"{facts['parameters']:,} parameters: {dtypes}",
    ]
    return "\n".join(lines)


def checkpoint_json(checkpoint: Checkpoint, depth: int | None, family: str) -> dict[str, Any]:
    """A checkpoint for programs; sizes and offsets are in bytes."""
    tensors = list(checkpoint.tensors.values())
    by_dtype: dict[str, int] = {}
    for tensor in tensors:
        dtype = tensor.spec.dtype.value
        by_dtype[dtype] = by_dtype.get(dtype, 0) + tensor.spec.elements
    return {
        "path": str(checkpoint.path),
        "notes": list(checkpoint.notes),
        "family": family,
        "layers": depth,
        "parameters": sum(by_dtype.values()),
        "parameters_by_dtype": by_dtype,
        "bytes": sum(tensor.spec.nbytes for tensor in tensors),
        "files": len({tensor.path for tensor in tensors}),
        "tensors": [
            {
                "name": tensor.spec.name,
                "dtype": tensor.spec.dtype.value,
                "shape": list(tensor.spec.shape),
                "bytes": tensor.spec.nbytes,
                "file": tensor.path.name,
                "offset": tensor.offset,
            }
            for tensor in tensors
        ],
    }


def peak_memory() -> int | None:
    """Peak resident bytes of this process so far; None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None
