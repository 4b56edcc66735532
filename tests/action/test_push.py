"""How the action pushes: by which command, under which name at the Hub, and with what answer."""

import pytest

from tests.action.conftest import KEEP, stand_in
from tests.action.runner import Ran, Runner

URL = "https://hub.example/org/name/commit/0123"

RECORD = f"""\
printf '%s\\n' "$@" > arguments
printf '%s' "${{HF_OIDC_RESOURCE-unset}}" > resource
echo 'sent 1 of 1' >&2
echo {URL}"""

TOKENLESS = {"ACTIONS_ID_TOKEN_REQUEST_URL": "http://localhost"}


def push(
    runner: Runner,
    *,
    to: str = "org/name",
    keep: str = "true",
    script: str = RECORD,
    limit: str = "",
) -> Ran:
    """Runs the action with a stand-in; where the result is kept, from the push on."""
    given = stand_in(runner, script)
    if keep == "true":
        given = {**given, "apply": {"folder": str(runner.temp / "merged")}}
    inputs = {"recipe": "recipe.yaml", "push-to": to, "keep": keep, "max-memory": limit}
    return runner.run_action(inputs | {"check": "false"}, given=given)


def test_push_outputs_the_address_of_the_commit_and_shows_it(runner: Runner) -> None:
    runner.environment["HF_TOKEN"] = "none"
    ran = push(runner)
    assert ran.code == 0, ran.log
    assert ran.outputs["push"] == {"url": URL}
    assert ran.summary == f"\n    {URL}\n\n"
    assert "sent 1 of 1" in ran.log
    arguments = (runner.workspace / "arguments").read_text().splitlines()
    assert arguments == ["push", "--", str(runner.temp / "merged"), "org/name"]


def test_result_that_is_not_kept_is_pushed_by_apply(runner: Runner) -> None:
    runner.environment["HF_TOKEN"] = "none"
    ran = push(runner, to="org/name@branch", keep="false", limit="512MB")
    assert ran.code == 0, ran.log
    assert ran.outputs["apply"] == {"url": URL}
    assert f"    {URL}\n" in ran.summary
    assert ran.done == ["Look at the inputs", "Apply the recipe"]
    folder = runner.temp / "tensorsurgeon.stand-in" / "merged"
    arguments = (runner.workspace / "arguments").read_text().splitlines()
    assert arguments == [
        *("apply", f"--output={folder}", "--max-memory=512MB"),
        *("--push=org/name@branch", "--push-only", "--", "recipe.yaml"),
    ]


def test_nothing_is_pushed_unless_asked_for(runner: Runner) -> None:
    runner.environment["HF_TOKEN"] = "none"
    ran = push(runner, to="")
    assert ran.done == ["Look at the inputs"]
    assert "push" not in ran.outputs


@pytest.mark.parametrize("keep", KEEP)
def test_token_is_used_where_there_is_one(runner: Runner, keep: str) -> None:
    runner.environment |= TOKENLESS | {"HF_TOKEN": "none"}
    assert push(runner, keep=keep).code == 0
    assert (runner.workspace / "resource").read_text() == "unset"


@pytest.mark.parametrize("keep", KEEP)
@pytest.mark.parametrize("to", ["org/name", "org/name@branch", "org/name@refs/pr/1"])
def test_without_a_token_the_job_asks_for_one_for_that_repository_alone(
    runner: Runner, to: str, keep: str
) -> None:
    runner.environment |= TOKENLESS
    assert push(runner, to=to, keep=keep).code == 0
    assert (runner.workspace / "resource").read_text() == "org/name"


@pytest.mark.parametrize("keep", KEEP)
def test_name_under_which_sources_were_read_is_not_that_for_the_push(
    runner: Runner, keep: str
) -> None:
    runner.environment |= TOKENLESS | {"HF_OIDC_RESOURCE": "somebody"}
    assert push(runner, keep=keep).code == 0
    assert (runner.workspace / "resource").read_text() == "org/name"


@pytest.mark.parametrize("keep", KEEP)
def test_push_without_a_token_is_refused_before_anything_is_merged(
    runner: Runner, keep: str
) -> None:
    ran = runner.run_action({"recipe": "recipe.yaml", "push-to": "org/name", "keep": keep})
    assert ran.code == 2
    assert "needs the job's permission 'id-token: write', or HF_TOKEN" in ran.log
    assert ran.done == ["Look at the inputs"]


def test_result_that_is_not_kept_needs_a_repository(runner: Runner) -> None:
    ran = runner.run_action({"recipe": "recipe.yaml", "keep": "false"})
    assert ran.code == 2
    assert "'keep: false' needs the input 'push-to'" in ran.log
    assert ran.done == ["Look at the inputs"]


def test_failed_push_tells_why_in_the_summary(runner: Runner) -> None:
    runner.environment["HF_TOKEN"] = "none"
    ran = push(runner, script="echo '::error::org/name: the branch has moved' >&2; exit 7")
    assert ran.code == 7
    assert ran.summary.strip("\n") == "    ::error::org/name: the branch has moved"
    assert not ran.outputs["push"]


def test_address_is_told_where_the_peak_is_found_above_the_limit_after_the_push(
    runner: Runner,
) -> None:
    runner.environment["HF_TOKEN"] = "none"
    script = f'{RECORD}; python3 -c "bytearray(60_000_000)"'
    ran = push(runner, keep="false", limit="30MB", script=script)
    assert ran.code == 1
    assert "at the peak, where max-memory is 30 MB" in ran.summary
    assert f"    {URL}\n" in ran.summary
