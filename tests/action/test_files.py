"""What action.yml and the workflow must hold as files, whatever they do."""

import re

import pytest

from tests.action.runner import ACTION, ROOT, WORKFLOW, Step

STEPS: list[Step] = [*ACTION["runs"]["steps"], *WORKFLOW["jobs"]["demo"]["steps"]]
SHELL = [step for step in STEPS if "run" in step]
SHARED = ROOT / ".github" / "action" / "steps.sh"
FILES = [ROOT / "action.yml", ROOT / ".github" / "workflows" / "merge.yml"]


def test_actions_of_others_are_pinned_to_a_commit_and_say_its_version() -> None:
    lines = [line for file in FILES for line in file.read_text().splitlines() if "uses:" in line]
    others = [line for line in lines if not line.endswith("uses: ./")]
    assert len(others) == 3
    for line in others:
        assert re.search(r"uses: actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


@pytest.mark.parametrize("step", SHELL, ids=lambda step: step["name"])
def test_shell_step_holds_no_expression_and_stops_at_the_first_failure(step: Step) -> None:
    assert "${{" not in step["run"]
    assert step["run"].startswith("set -euo pipefail\n")


@pytest.mark.parametrize("step", SHELL, ids=lambda step: step["name"])
def test_shell_step_uses_every_variable_that_it_is_given(step: Step) -> None:
    for name in step.get("env", {}):
        assert re.search(rf"\$\{{?{name}\b", step["run"]), name


def test_every_input_is_described_and_reaches_a_step() -> None:
    used = str(ACTION["runs"]["steps"])
    for name, entry in ACTION["inputs"].items():
        assert entry["description"].endswith(".")
        assert f"inputs.{name} " in used
        assert ("default" in entry) != entry.get("required", False)


def test_every_output_is_described_and_is_that_of_a_step() -> None:
    steps = {step["id"]: step for step in ACTION["runs"]["steps"] if "id" in step}
    assert set(ACTION["outputs"]) == {"folder", "url"}
    for name, entry in ACTION["outputs"].items():
        assert entry["description"].endswith(".")
        inner = entry["value"].removeprefix("${{ ").removesuffix(" }}")
        for one in inner.split(" || "):
            match = re.fullmatch(rf"steps\.(\w+)\.outputs\.{name}", one)
            assert match, one
            assert f"give {name} " in steps[match[1]]["run"]


def test_workflow_may_only_read_the_repository_and_keeps_no_credentials() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    for job in WORKFLOW["jobs"].values():
        assert "permissions" not in job
        assert job["steps"][0]["with"] == {"persist-credentials": False}
    assert "secrets." not in FILES[1].read_text()


def test_manual_names_every_input_and_output() -> None:
    manual = (ROOT / "recipes" / "README.md").read_text()
    for name in (*ACTION["inputs"], *ACTION["outputs"]):
        assert f"`{name}`" in manual, name
