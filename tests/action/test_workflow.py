"""The workflow on the demo's recipe: its shell steps as they are, and the action in its place."""

from pathlib import Path

from tests.action.conftest import Given
from tests.action.runner import ACTION, ROOT, WORKFLOW, Runner, evaluated
from tests.cli.checkpoints import read_config

STEPS = WORKFLOW["jobs"]["demo"]["steps"]
HERE = next(number for number, step in enumerate(STEPS) if step.get("uses") == "./")


def test_workflow_makes_the_model_applies_the_recipe_and_finds_the_result(
    offline: Runner, installed: Given, smollm2: Path
) -> None:
    for name in ("recipes", "constraints.txt"):
        (offline.workspace / name).symlink_to(ROOT / name)
    (offline.workspace / "models").symlink_to(smollm2.parent)

    before = offline.run_steps([step for step in STEPS[:HERE] if "run" in step])
    assert before.code == 0, before.log
    assert "--torch-backend cpu" in " ".join(before.log.split())
    assert before.log.splitlines()[-1].endswith("/models/SmolLM2-135M-Instruct")

    merged = offline.run_action(STEPS[HERE]["with"], given=installed)
    assert merged.code == 0, merged.log
    assert "    layer map: 44 layers\n" in merged.summary

    known = {"steps": {name: {"outputs": found} for name, found in merged.outputs.items()}}
    outputs = {name: evaluated(out["value"], known) for name, out in ACTION["outputs"].items()}
    assert read_config(Path(outputs["folder"]))["num_hidden_layers"] == 44
    assert outputs["url"] == ""
    after = offline.run_steps(STEPS[HERE + 1 :], given={STEPS[HERE]["id"]: outputs})
    assert after.code == 0, after.log
    assert "model.safetensors" in after.log
