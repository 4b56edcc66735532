"""A GitHub runner in small: runs an action's or a job's shell steps as they are written."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]

Step = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How the steps ended.

    Attributes:
        code: the last step's exit code.
        log: what all of them printed, stdout and stderr together.
        summary: the job summary, in Markdown.
        outputs: of each step with an id, what it has set.
        done: the names of the shell steps that ran.
    """

    code: int
    log: str
    summary: str
    outputs: Mapping[str, Mapping[str, str]]
    done: Sequence[str]


def read(path: Path) -> Any:
    """A YAML 1.2 file, in which `on` is a word."""
    return YAML(typ="safe").load(path.read_text())


ACTION = read(ROOT / "action.yml")
WORKFLOW = read(ROOT / ".github" / "workflows" / "merge.yml")


class Runner:
    """One job's machine: its folders, and the environment of its steps.

    Attributes:
        workspace: where steps start, as after a checkout.
        temp: `RUNNER_TEMP`.
        action: what `GITHUB_ACTION_PATH` says: the folder with action.yml.
        environment: variables of every step; tests add to them.
        wrapper: what each step's bash is run by; nothing, unless tests say otherwise.
    """

    def __init__(self, folder: Path, action: Path = ROOT):
        self.workspace, self.temp, self.action = folder / "work space", folder / "temp", action
        self.wrapper: Sequence[str] = ()
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder / "home"),
            "LANG": "C.UTF-8",
            "TMPDIR": str(folder / "temp"),
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(action),
            "GITHUB_WORKSPACE": str(self.workspace),
            "RUNNER_TEMP": str(self.temp),
        }
        for path in (self.workspace, self.temp, folder / "home"):
            path.mkdir(parents=True, exist_ok=True)

    def run_action(
        self,
        inputs: Mapping[str, str],
        *,
        given: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Ran:
        """Runs action.yml; a step whose outputs are `given`, by its id, is not run."""
        defaults = {name: entry.get("default", "") for name, entry in ACTION["inputs"].items()}
        return self.run_steps(ACTION["runs"]["steps"], defaults | dict(inputs), given=given)

    def run_steps(
        self,
        steps: Sequence[Step],
        inputs: Mapping[str, str] | None = None,
        *,
        given: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Ran:
        """Runs steps until one fails; those that use an action of others must have an output."""
        outputs: dict[str, Mapping[str, str]] = {
            "python": {"python-path": sys.executable},
            **(given or {}),
        }
        code, log, done = 0, "", list[str]()
        summary = self.temp / "summary.md"
        summary.touch()
        for step in steps:
            known = {
                "inputs": inputs or {},
                "steps": {name: {"outputs": found} for name, found in outputs.items()},
            }
            if step.get("id") in outputs or not _holds(step.get("if", ""), known):
                continue
            assert "run" in step, f"{step} is not a shell step"
            code, printed, found = self._run(step, known, summary)
            log, done = log + printed, [*done, step["name"]]
            if "id" in step:
                outputs[step["id"]] = found
            if code:
                break
        return Ran(code=code, log=log, summary=summary.read_text(), outputs=outputs, done=done)

    def _run(
        self, step: Step, known: Mapping[str, Any], summary: Path
    ) -> tuple[int, str, Mapping[str, str]]:
        assert step.get("shell", "bash") == "bash"
        script, output = self.temp / "script.sh", self.temp / "output"
        script.write_text(step["run"])
        output.write_text("")
        values = {name: evaluated(value, known) for name, value in step.get("env", {}).items()}
        files = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary)}
        ended = subprocess.run(
            [*self.wrapper, "bash", "--noprofile", "--norc", "-eo", "pipefail", script],
            cwd=self.workspace,
            env=self.environment | files | values,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return ended.returncode, ended.stdout, dict(_outputs(output.read_text()))


def evaluated(value: str, known: Mapping[str, Any]) -> str:
    """A text in which each `${{ a.b.c }}` gives way to what is known under that name.

    Of `${{ a.b || c.d }}` it is the first that is not empty.
    """

    def look_up(match: re.Match[str]) -> str:
        return next(filter(None, (_known(path, known) for path in match[1].split(" || "))), "")

    return re.sub(r"\$\{\{ ([\w.-]+(?: \|\| [\w.-]+)*) \}\}", look_up, value)


def _known(path: str, known: Mapping[str, Any]) -> str:
    found: Any = known
    for name in path.split("."):
        found = found.get(name, {})
    return str(found or "")


def _holds(condition: str, known: Mapping[str, Any]) -> bool:
    return not condition or all(_compare(part, known) for part in condition.split(" && "))


def _compare(condition: str, known: Mapping[str, Any]) -> bool:
    match = re.fullmatch(r"([\w.-]+) (==|!=) '(\w*)'", condition)
    assert match, f"{condition} is not understood here"
    return (_known(match[1], known) == match[3]) == (match[2] == "==")


def _outputs(text: str) -> Iterator[tuple[str, str]]:
    lines = iter(text.splitlines())
    for line in lines:
        name, here, delimiter = line.partition("<<")
        if not here:
            name, equals, value = line.partition("=")
            assert equals, f"{line!r} is no output"
            yield name, value
            continue
        block = list[str]()
        for following in lines:
            if following == delimiter:
                break
            block.append(following)
        yield name, "\n".join(block)


def program(path: Path, script: str) -> None:
    """Writes a program of a few lines of bash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    os.chmod(path, 0o755)
