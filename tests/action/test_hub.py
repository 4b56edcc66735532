"""The whole action but Install, with sources of a Hub and a repository to push to."""

import shutil
from pathlib import Path

import pytest

from tests.action.conftest import KEEP, RECIPE, Given
from tests.action.runner import ACTION, Ran, Runner, evaluated
from tests.cli.checkpoints import file_bytes, tiny_llama
from tests.hub.loopback import LoopbackHub
from tests.hub.messages import Request, Response, reply, route
from tests.hub.state import Refusal

JOB, IDENTITY, SHORT_LIVED = "of-this-job", "identity.of.the.job", "hf_jwt_for_an_hour"

DISK = """\
mount -t tmpfs -o size=250k none disk
status=0
"$@" || status=$?
find disk -type f -size +8k -exec echo left: {} \\;
exit "$status"
"""
"""Runs a program with `disk` as a disk that the model does not fit on; tells what is left there."""


class Exchange:
    """GitHub gives a job its identity, and the Hub a token for that, to one repository's name.

    Attributes:
        trusting: the repository that has named the job's workflow as a trusted publisher.
        audiences: whom identities were asked for.
    """

    def __init__(self, hub: LoopbackHub, trusting: str):
        self.hub, self.trusting, self.audiences = hub, trusting, list[str | None]()
        hub.add_routes(
            route("GET", "/github/identity", self.identity),
            route("POST", "/oauth/token", self.token),
        )

    def identity(self, request: Request) -> Response:
        """GitHub's side."""
        if request.headers.get("authorization") != f"Bearer {JOB}":
            raise Refusal(401, None, "whose job?")
        self.audiences.append(request.query.get("audience"))
        return reply({"value": IDENTITY})

    def token(self, request: Request) -> Response:
        """The Hub's side: RFC 8693."""
        asked = request.json()
        if (asked["subject_token"], asked["resource"]) != (IDENTITY, self.trusting):
            return reply({"error": "invalid_grant"}, status=400)
        self.hub.add_account(SHORT_LIVED, "oidc", namespaces=[self.trusting.split("/")[0]])
        return reply({"access_token": SHORT_LIVED, "token_type": "bearer", "expires_in": 3600})


@pytest.fixture
def online(runner: Runner, hub: LoopbackHub, tmp_path: Path) -> Runner:
    """A runner without a token, whose recipe makes shards of 80 kB of the Hub's `org/base`.

    `org/name` is there as well.
    """
    runner.environment |= hub.settings()
    del runner.environment["HF_TOKEN"]
    hub.add_folder("org/base", tiny_llama(tmp_path / "base", hidden=64, vocab=512, shards=2))
    hub.add_repo("org/name")
    recipe = RECIPE.format(model="org/base") + "output: {max_shard_size: 80KB}\n"
    (runner.workspace / "recipe.yaml").write_text(recipe)
    return runner


@pytest.fixture
def tokenless(online: Runner, hub: LoopbackHub) -> Exchange:
    """A job with the permission `id-token: write`, which `org/name` trusts."""
    online.environment |= {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{hub.endpoint}/github/identity?api-version=2.0",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": JOB,
    }
    return Exchange(hub, trusting="org/name")


@pytest.mark.parametrize("keep", KEEP)
def test_job_without_any_secret_merges_and_pushes(
    keep: str, online: Runner, tokenless: Exchange, hub: LoopbackHub, installed: Given
) -> None:
    ran = act(online, installed, keep)
    assert_pushed(ran, hub)
    assert set(tokenless.audiences) == {hub.endpoint}
    assert SHORT_LIVED not in ran.log + ran.summary
    assert tokens(hub, "name") == {SHORT_LIVED}
    assert tokens(hub, "base") == {None if keep == "true" else SHORT_LIVED}


@pytest.mark.parametrize("keep", KEEP)
def test_job_with_a_secret_pushes_with_that(
    keep: str, online: Runner, hub: LoopbackHub, installed: Given
) -> None:
    online.environment["HF_TOKEN"] = hub.token
    ran = act(online, installed, keep)
    assert_pushed(ran, hub)
    assert hub.token not in ran.log + ran.summary
    assert tokens(hub, "(name|base)") == {hub.token}


@pytest.mark.parametrize("keep", KEEP)
def test_job_that_the_repository_does_not_trust_is_told_so(
    keep: str, online: Runner, tokenless: Exchange, hub: LoopbackHub, installed: Given
) -> None:
    tokenless.trusting = "org/other"
    ran = act(online, installed, keep)
    # Where nothing is kept the token is asked for before the sources are read.
    assert ran.code == (7 if keep == "true" else 5), ran.log
    assert "no token" in ran.summary
    assert "Traceback" not in ran.log
    assert "url" not in ran.outputs["push" if keep == "true" else "apply"]


def test_recipe_that_says_where_to_push_is_not_pushed_there(
    online: Runner, hub: LoopbackHub, installed: Given
) -> None:
    online.environment["HF_TOKEN"] = hub.token
    recipe = RECIPE.format(model="./model") + "output: {push: org/name}\n"
    (online.workspace / "recipe.yaml").write_text(recipe)
    inputs = {"recipe": "recipe.yaml", "check": "false"}
    ran = online.run_action(inputs, given=installed)
    assert ran.outputs["apply"].keys() == {"folder"}
    assert not hub.files("org/name")


@pytest.mark.parametrize("output", ["", "disk/made"])
def test_result_that_the_disk_cannot_hold_is_pushed_whole_and_nothing_stays(
    output: str, online: Runner, hub: LoopbackHub, installed: Given
) -> None:
    online.environment["HF_TOKEN"] = hub.token
    kept = online.run_action({"recipe": "recipe.yaml", "check": "false"}, given=installed)
    folder = Path(kept.outputs["apply"]["folder"])
    expected = file_bytes(folder)
    assert sum(map(len, expected.values())) > 350_000
    shutil.rmtree(folder)

    (online.workspace / "disk").mkdir()
    online.environment["HF_HOME"] = str(online.workspace / "disk" / "hf_home")
    online.wrapper = ["unshare", "--map-root-user", "--mount", "bash", "-euc", DISK, "bash"]
    ran = act(online, installed, "false", check="true", output=output)
    assert_pushed(ran, hub)
    assert "they are streamed" in ran.log
    assert "left: " not in ran.log
    assert ran.done == ["Look at the inputs", "Apply the recipe"]
    assert ran.outputs["apply"].keys() == {"url"}
    there = hub.files("org/name")
    manifest = there["tensorsurgeon.json"]
    there["tensorsurgeon.json"] = manifest[: manifest.rindex(b'"created": ')]
    there["README.md"] = expected["README.md"]  # the one pushed tells its repository
    assert there == expected
    here = [path for path in online.temp.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in here) < 20_000


def act(
    runner: Runner, installed: Given, keep: str, *, check: str = "false", output: str = ""
) -> Ran:
    """Applies the recipe and pushes the result."""
    where = {"recipe": "recipe.yaml", "output": output, "push-to": "org/name"}
    how = {"max-memory": "512MB", "check": check, "keep": keep}
    return runner.run_action(where | how, given=installed)


def assert_pushed(ran: Ran, hub: LoopbackHub) -> None:
    """The Hub has the files of the folder, if that is kept, under the address that is given."""
    assert ran.code == 0, ran.log
    known = {"steps": {name: {"outputs": found} for name, found in ran.outputs.items()}}
    outputs = {name: evaluated(out["value"], known) for name, out in ACTION["outputs"].items()}
    head = hub.repo("org/name").resolve("main")
    assert outputs["url"] == f"{hub.endpoint}/org/name/commit/{head.oid}"
    assert outputs["url"] in ran.summary
    if outputs["folder"]:
        there = hub.files("org/name")
        for path in Path(outputs["folder"]).iterdir():
            assert there[path.name] == path.read_bytes()


def tokens(hub: LoopbackHub, repo: str) -> set[str | None]:
    """With which tokens repositories of `org` were asked about, or for their files."""
    log = hub.log.select(host="hub", target=f"^(/api/models)?/org/{repo}\\b")
    return {exchange.token for exchange in log}
