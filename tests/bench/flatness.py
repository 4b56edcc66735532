"""Whether our peak memory stays flat while the model doubles twice, or one tensor is 1 GiB.

The checkpoints are holes: zeros that take no room on disk and still have to be read.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.bench import measure, models
from tests.bench.jobs import OURS, Job, Workspace
from tests.bench.results import FlatnessRow
from tests.bench.shapes import Shape

# 272M parameters, nearly all of them in the layers, so that depth doubles the model.
BASE = Shape(layers=6, hidden=2048, intermediate=5632, heads=32, kv_heads=4, vocab=2000)

SHAPES = {
    "x1": BASE,
    "x2": BASE.with_layers(2 * BASE.layers),
    "x4": BASE.with_layers(4 * BASE.layers),
    "1 GiB tensor": Shape(
        layers=6, hidden=2048, intermediate=5632, heads=32, kv_heads=4, vocab=2**18, tied=True
    ),
}


def measure_flatness(folder: Path, jobs: Iterable[Job]) -> Iterator[FlatnessRow]:
    """Run every job once at every size."""
    for job in jobs:
        peaks = {}
        for label, shape in SHAPES.items():
            workspace = Workspace(folder=folder / label.replace(" ", "-"), shape=shape)
            for name in job.models:
                if not models.is_complete(shape, workspace.model(name)):
                    models.write(shape, workspace.model(name), models.leave_hole)
            workspace.clear(job, OURS)
            command = workspace.our_command(job)
            peaks[label] = measure.run(command, log=workspace.log(job, OURS)).peak_resident
            workspace.clear(job, OURS)
        yield FlatnessRow(title=job.title, peaks=peaks)
