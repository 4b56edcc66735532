"""The step Install, run as it is with real pip; what pip would download lies here already."""

import shutil
from pathlib import Path

from tests.action.runner import ACTION, ROOT, Ran, Runner
from tests.action.wheels import wheel

INSTALL = [step for step in ACTION["runs"]["steps"] if step["name"] == "Install"]


def test_install_without_a_version_builds_the_code_beside_the_action(
    offline: Runner, tmp_path: Path
) -> None:
    action = tmp_path / "the action"
    action.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / name, action)
    unwanted = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "tensorsurgeon", action / "tensorsurgeon", ignore=unwanted)
    changed = action / "tensorsurgeon" / "__init__.py"
    changed.write_text('__version__ = "7.7.7"\n')
    offline.environment["GITHUB_ACTION_PATH"] = str(action)

    ran = install(offline, check="false")
    assert ran.code == 0, ran.log
    assert "tensorsurgeon, version 7.7.7" in ran.log
    assert "uv" not in ran.log.split()
    packages = Path(ran.outputs["install"]["work"], "environment", "lib")
    assert list(packages.glob("*/site-packages/tensorsurgeon/kernels/_compiled*.so"))


def test_install_of_a_version_takes_that_release_and_the_cpu_build_of_torch(
    offline: Runner, tmp_path: Path
) -> None:
    for version in ("9.9.8", "9.9.9"):
        wheel(tmp_path / "wheels", "tensorsurgeon", version, f'echo "{version} $*"')
    ran = install(offline, version="9.9.8", check="true")
    assert ran.code == 0, ran.log
    python = Path(ran.outputs["install"]["work"], "environment", "bin", "python")
    assert ran.log.split() == [
        *f"uv pip install --quiet --python {python} --torch-backend cpu".split(),
        *f"--constraint {ROOT / 'constraints.txt'} accelerate torch transformers".split(),
        "9.9.8",
        "--version",
    ]


def test_install_takes_no_torch_where_nothing_is_kept_that_could_be_checked(
    offline: Runner, tmp_path: Path
) -> None:
    wheel(tmp_path / "wheels", "tensorsurgeon", "9.9.9", "echo 9.9.9")
    ran = install(offline, version="9.9.9", check="true", keep="false")
    assert ran.code == 0, ran.log
    assert ran.log == "9.9.9\n"


def install(runner: Runner, *, version: str = "", check: str = "false", keep: str = "true") -> Ran:
    """Runs the step alone, where modules lie in the workspace that must not be run by it."""
    for name in ("venv", "pip", "ensurepip", "sitecustomize", "tensorsurgeon"):
        (runner.workspace / f"{name}.py").write_text("open('pwned', 'w')\n")
    ran = runner.run_steps(INSTALL, {"version": version, "check": check, "keep": keep})
    assert not (runner.workspace / "pwned").exists()
    return ran
