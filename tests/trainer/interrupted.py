"""A training to be interrupted: the same wherever it is, and what of it no interruption changes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tensorsurgeon.checkpoint import MANIFEST_NAME, read_manifest
from tests.cli.checkpoints import file_bytes
from tests.trainer.runs import apply_surgery, events_of, write_run

Tokens = tuple[Path, Path]

STEPS = 10


def grow(folder: Path, model: Path) -> Path:
    """A model with a seam."""
    return apply_surgery(folder, model, {"depth_up_scale": {"model": "base", "remove": 1}})


def make_run(
    folder: Path, model: Path, base: Path, tokens: Tokens, name: str = "run", **changes: Any
) -> Path:
    """A run file of the same text wherever it is, slow enough to be stopped on its way."""
    settings: dict[str, Any] = {
        "folder": f"./{name}",
        "output": {"path": "./out"},
        "steps": STEPS,
        "preset": "dus",
        "evaluate": {"every": 1, "sequences": 8, "baseline": str(base)},
        "checkpoint": {"every": 3},
        "schedule": {"warm_up": 3},
    }
    return write_run(folder / f"{name}.yaml", model, tokens, **(settings | changes))


MEASURED = {
    "step": ("step", "loss", "gradient_norm", "learning_rate", "tokens", "skipped"),
    "evaluation": ("step", "loss", "tokens"),
    "baseline": ("name", "loss", "tokens"),
    "layers": ("step", "gradient_norms", "moved"),
    "seams": ("step", "seams"),
}
"""Of each event, what no interruption may change."""


def measured(run: Path) -> dict[str, Any]:
    return {
        kind: [[event[key] for key in keys] for event in events_of(run, kind)]
        for kind, keys in MEASURED.items()
    }


def written(folder: Path) -> dict[str, Any]:
    """The bytes of a checkpoint; the manifest without when it was made."""
    files: dict[str, Any] = file_bytes(folder)
    del files[MANIFEST_NAME]
    return files | {"manifest": replace(read_manifest(folder / MANIFEST_NAME), created={})}


def assert_same_training(one: Path, other: Path) -> None:
    assert measured(one) == measured(other)
    assert written(one.parent / "out") == written(other.parent / "out")
    assert not (one.parent / ".out.part").exists()


def has_taken(run: Path, step: int) -> bool:
    metrics = run.with_suffix("") / "metrics.jsonl"
    return metrics.exists() and f'"event": "step", "step": {step},' in metrics.read_text()


def newest(run: Path) -> int:
    """The step of the newest checkpoint; 0 without one."""
    folders = (run.with_suffix("") / "checkpoints").glob("step-????????")
    return max((int(path.name.removeprefix("step-")) for path in folders), default=0)


def resumed_at(run: Path) -> list[int | None]:
    return [event["resumed_at"] for event in events_of(run, "run")]
