"""Metrics of trainings that never were, with the shapes that real ones have."""

import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

Event = dict[str, Any]

T = 2048
TOKENS_PER_STEP = 256 * T
BASE_LOSS = 2.3124


def write(path: Path, events: Iterable[Mapping[str, Any]]) -> Path:
    """A file of metrics; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


def run_event(steps: int = 1000, depth: int = 0, **changed: Any) -> Event:
    """The event that a run begins with; of copied layers unless told otherwise."""
    plain = [{"sources": [["base", i]], "new": False, "seam": False} for i in range(depth)]
    return {
        "event": "run",
        "stage": "pretrain",
        "name": "smollm2-205m-dus",
        "parameters": 205_432_128,
        "trainable": 205_432_128,
        "layers": plain,
        "steps": steps,
        "tokens_per_step": TOKENS_PER_STEP,
        "sequence_length": T,
        "world_size": 1,
        "device": "NVIDIA H100 80GB HBM3",
        "peak_flops": 989.4e12,
        "versions": {"tensorsurgeon": "0.5.0", "torch": "2.11.0+cu130", "transformers": "5.17.0"},
        "resumed_at": None,
        "at": "2026-03-04T09:26:53+00:00",
    } | changed


def step_event(step: int, loss: float | None = 2.5, **changed: Any) -> Event:
    return {
        "event": "step",
        "step": step,
        "loss": loss,
        "learning_rate": 1e-4,
        "gradient_norm": 1.0,
        "tokens": step * TOKENS_PER_STEP,
        "tokens_per_second": 210_000.0,
        "mfu": 0.41,
        "memory": 30_000_000_000,
        "seconds": 2.5 * step,
        "skipped": None,
    } | changed


def evaluation_event(step: int, loss: float | None, **changed: Any) -> Event:
    return {"event": "evaluation", "step": step, "loss": loss, "tokens": 1_048_576} | changed


def baseline_event(loss: float = BASE_LOSS) -> Event:
    return {"event": "baseline", "name": "SmolLM2-135M", "loss": loss, "tokens": 1_048_576}


def layers_of(depth: int, *, seams: int = 1, new: int = 0) -> list[Event]:
    """Layers of a grown model: upscaled with so many seams, or with every `new`th layer added."""
    layers: list[Event] = []
    piece = max(depth // (seams + 1), 1)
    for layer in range(depth):
        added = bool(new) and layer % new == new - 1
        origin = layer if new else max(layer - (layer // piece) * (piece // 2), 0)
        seam = not new and seams > 0 and layer > 0 and layer % piece == 0
        layers.append({"sources": [["base", origin]], "new": added, "seam": seam})
    return layers


def training(
    *,
    steps: int = 3000,
    depth: int = 38,
    seams: int = 1,
    new: int = 0,
    seed: int = 0,
    lost: float = 3.9,
    gain: float = 0.17,
    resumed: int | None = None,
    end: str | None = "finished",
    **changed: Any,
) -> Iterator[Event]:
    """A whole run: recovery after surgery, WSD, a spike, a step that was not finite, seams.

    Args:
        steps: of the whole run.
        depth: layers.
        seams: evenly over the depth, where `new` is 0.
        new: every how many layers one is new.
        seed: of the noise.
        lost: nats that the surgery cost.
        gain: nats below the base's loss at which the run would end.
        resumed: a step after which the run was interrupted and went on.
        end: how it ended; None for not yet.
        changed: keys of the event `run`.
    """
    noise = random.Random(seed)
    layers = layers_of(depth, seams=seams, new=new)
    begin = run_event(steps, layers=layers, **changed)
    yield begin
    yield baseline_event()
    for step in range(steps + 1):
        yield from _step(step, steps, layers, noise, lost, gain) if step else ()
        if step % max(steps // 40, 1) == 0:
            yield evaluation_event(step, _loss(step, steps, lost, gain) + noise.gauss(0, 0.004))
        if step % max(steps // 100, 1) == 0:
            yield from _layers(step, steps, layers, noise)
        if step and step % max(steps // 6, 1) == 0:
            yield {"event": "saved", "step": step, "seconds": 3.1, "bytes": 2_465_185_536}
        if step and step == resumed:
            yield begin | {"resumed_at": step, "at": "2026-03-04T11:02:10+00:00"}
    if end:
        yield {"event": "end", "step": steps, "reason": end}


def _loss(step: int, steps: int, lost: float, gain: float) -> float:
    share = step / max(steps, 1)
    recovery = lost * math.exp(-((share / 0.012) ** 0.62))
    return BASE_LOSS + recovery - gain * (1 - math.exp(-share * 2.2)) - 0.03 * max(share - 0.85, 0)


def _rate(step: int, steps: int) -> float:
    warm, decay = max(steps // 50, 1), steps * 0.85
    if step < warm:
        return 3e-4 * step / warm
    return 3e-4 * min(1.0, 0.1 + 0.9 * (steps - step) / max(steps - decay, 1))


def _step(
    step: int, steps: int, layers: list[Event], noise: random.Random, lost: float, gain: float
) -> Iterator[Event]:
    share = step / steps
    loss: float | None = _loss(step, steps, lost, gain) + noise.gauss(0, 0.045)
    norm: float | None = 0.35 + lost * 2.2 * math.exp(-share / 0.01) + abs(noise.gauss(0, 0.08))
    skipped = None
    if steps > 50 and step == steps * 2 // 5:
        loss, norm, skipped = loss + 1.4, 38.0, "spike"
    if steps > 50 and step == steps * 7 // 10:
        loss, norm, skipped = None, None, "not finite"
    pause = 0.72 if step % max(steps // 40, 1) == 0 else 1.0
    speed = 612_000 * pause * (1 + noise.gauss(0, 0.008))
    yield step_event(
        step,
        loss,
        learning_rate=_rate(step, steps),
        gradient_norm=norm,
        tokens_per_second=speed,
        mfu=speed / 612_000 * 0.413,
        memory=38_654_705_664 if step > 3 else 34_100_000_000,
        seconds=step * TOKENS_PER_STEP / 601_000,
        skipped=skipped,
    )


def _layers(step: int, steps: int, layers: list[Event], noise: random.Random) -> Iterator[Event]:
    share, depth = step / max(steps, 1), len(layers)
    near = [
        max((math.exp(-abs(i - s) / 2.5) for s, x in enumerate(layers) if x["seam"]), default=0.0)
        for i in range(depth)
    ]
    moved = [
        (0.05 + 0.09 * near[i] + 0.02 * math.sin(i / 3) + (0.12 if layers[i]["new"] else 0))
        * (1 - math.exp(-share * 3))
        for i in range(depth)
    ]
    norms: list[float | None] = [
        (0.05 + 0.25 * near[i] + 1.3 * math.exp(-share / 0.02) * (0.2 + near[i]))
        * (1 + abs(noise.gauss(0, 0.15)))
        for i in range(depth)
    ]
    yield {"event": "layers", "step": step, "gradient_norms": norms, "moved": moved}
    seams = [
        {
            "layer": i,
            "original": layers[i]["sources"][0],
            "cosine": 0.93 - (0.31 + 0.02 * i / depth) * math.exp(-share / 0.15),
            "norm_ratio": 1.04 + (1.1 + 0.3 * i / depth) * math.exp(-share / 0.1),
        }
        for i in range(depth)
        if layers[i]["seam"]
    ]
    yield {"event": "seams", "step": step, "seams": seams}
