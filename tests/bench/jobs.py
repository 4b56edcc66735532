"""What is merged: one entry a job, and the commands to run."""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench.job import Job, Recipe
from tests.bench.methods import METHODS
from tests.bench.shapes import Shape

ROOT = Path(__file__).parents[2]
PEER_BIN = ROOT / ".venv-mergekit" / "bin"

OURS, FLOOR, PEER = "tensorsurgeon", "floor", "mergekit"


def up_scaling_slices(shape: Shape) -> list[tuple[int, int]]:
    """Depth up-scaling as in SOLAR: two copies, each short of a quarter of the layers."""
    removed = shape.layers // 4
    return [(0, shape.layers - removed), (removed, shape.layers)]


def up_scaled(shape: Shape) -> Shape:
    """The shape that depth up-scaling gives: 22 layers become 34, 32 become 48."""
    return shape.with_layers(sum(end - start for start, end in up_scaling_slices(shape)))


PLAIN = (
    Job(
        name="linear",
        title="linear",
        models=("a", "b"),
        merged=lambda _: {"linear": {"models": ["a", "b"], "weights": [0.3, 0.7]}},
        peer=lambda _, paths: {
            "merge_method": "linear",
            "models": [
                {"model": paths["a"], "parameters": {"weight": 0.3}},
                {"model": paths["b"], "parameters": {"weight": 0.7}},
            ],
            "dtype": "bfloat16",
        },
    ),
    Job(
        name="slerp",
        title="SLERP",
        models=("a", "b"),
        merged=lambda _: {"slerp": {"models": ["a", "b"], "t": 0.4}},
        peer=lambda _, paths: {
            "merge_method": "slerp",
            "base_model": paths["a"],
            "models": [{"model": paths["a"]}, {"model": paths["b"]}],
            "parameters": {"t": 0.4},
            "dtype": "bfloat16",
        },
    ),
    Job(
        name="dus",
        title="DUS",
        models=("base",),
        merged=lambda shape: {
            "stack": [
                {"model": "base", "layers": list(layers)} for layers in up_scaling_slices(shape)
            ]
        },
        peer=lambda shape, paths: {
            "merge_method": "passthrough",
            "slices": [
                {"sources": [{"model": paths["base"], "layer_range": list(layers)}]}
                for layers in up_scaling_slices(shape)
            ],
            "dtype": "bfloat16",
        },
        grown=up_scaled,
        exact=True,
    ),
)
"""A merge of two, and layers stacked."""

JOBS = {job.name: job for job in (*PLAIN, *METHODS)}


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where the models of one shape, and the jobs' recipes, outputs and logs are."""

    folder: Path
    shape: Shape

    def model(self, name: str) -> Path:
        """Folder of an input."""
        return self.folder / "models" / name

    def inputs(self, job: Job) -> list[Path]:
        """Every weight file that a job reads."""
        return [path for name in job.models for path in self.model(name).glob("*.safetensors")]

    def output(self, job: Job, program: str) -> Path:
        """What a program writes: a checkpoint folder, or the floor's one file."""
        return self.folder / job.name / program

    def log(self, job: Job, program: str) -> Path:
        """What a program printed."""
        return self.folder / job.name / f"{program}.log"

    def clear(self, job: Job, program: str) -> None:
        """Remove what a program wrote."""
        output = self.output(job, program)
        if output.is_dir():
            shutil.rmtree(output)
        else:
            output.unlink(missing_ok=True)

    def our_command(
        self, job: Job, *, module: str = "tensorsurgeon", out: Path | None = None
    ) -> list[str]:
        """This engine's command for a job, its recipe written.

        Args:
            job: which.
            module: what is run in the engine's place.
            out: where to, in place of the job's folder.
        """
        recipe = self._write(
            job,
            "recipe.yaml",
            {
                "models": {name: f"../models/{name}" for name in job.models}
                | {"merged": job.merged(self.shape)},
                "result": "merged",
                "output": {"path": f"./{OURS}"},
            },
        )
        places = {"recipe": str(recipe), "out": str(out or self.output(job, OURS))}
        arguments = [argument.format_map(places) for argument in job.arguments]
        return [sys.executable, "-m", module, *arguments]

    def floor_command(self, job: Job, write: str) -> list[str]:
        """The floor's command: the job's inputs, and as many bytes as its output."""
        out, size = str(self.output(job, FLOOR)), str(job.grown(self.shape).size)
        program = str(Path(__file__).with_name("floor.py"))
        inputs = map(str, self.inputs(job))
        return [sys.executable, "-I", "-S", program, write, out, size, *inputs]

    def peer_command(self, job: Job) -> list[str] | None:
        """mergekit's command for a job, its configuration written; None if it cannot do it."""
        if job.peer is None:
            return None
        paths = {name: str(self.model(name)) for name in job.models}
        config = self._write(job, "mergekit.yaml", job.peer(self.shape, paths))
        flags = ["--lazy-unpickle", "--no-copy-tokenizer", "--no-write-model-card"]
        out = str(self.output(job, PEER))
        return [str(PEER_BIN / "mergekit-yaml"), str(config), out, *flags]

    def _write(self, job: Job, name: str, content: Recipe) -> Path:
        path = self.folder / job.name / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # JSON is YAML.
        path.write_text(json.dumps(content, indent=2) + "\n")
        return path
