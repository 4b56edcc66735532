"""`apply --push`: refused early if at all; the result is here, and in the repository."""

import json

import pytest

from tests.hub.desk import (
    REPO,
    WRITING,
    Desk,
    desk,
    files_of,
    made_by_apply,
    pushed_files,
    two_models,
    write_recipe,
)
from tests.hub.faults import Fail, Meanwhile
from tests.hub.loopback import CANARY
from tests.hub.quick import quick

__all__ = ["desk", "quick"]

PLAN, USAGE = 6, 2


@pytest.fixture
def models(desk: Desk) -> Desk:
    two_models(desk)
    write_recipe(desk)
    return desk


def test_result_is_here_and_there(models: Desk) -> None:
    desk = models
    done = desk.run("apply", desk.folder / "recipe.yaml", "--push", REPO)
    assert done.code == 0, done.err
    desk.assert_holds(desk.folder / "out")
    assert {"README.md", "config.json", "tensorsurgeon.json"} <= files_of(
        desk.folder / "out"
    ).keys()
    assert done.out == f"{desk.hub.endpoint}/{REPO}/commit/{desk.head()}\n"
    assert pushed_files(desk) == made_by_apply(desk)
    assert desk.hub.repo(REPO).private
    assert not (desk.folder / ".out.part").exists()


def test_recipe_names_the_repository_and_the_option_another(models: Desk) -> None:
    desk = models
    output = "{path: ./out, max_shard_size: 80KB, push: org/named}"
    recipe = write_recipe(desk, output=output)
    assert desk.call("apply", recipe, "--push", "org/other", "-o", "other").code == 0
    assert "org/named" not in desk.hub.registry.repos
    desk.assert_holds(desk.folder / "other", "org/other")
    assert desk.call("apply", recipe, "--public").code == 0
    desk.assert_holds(desk.folder / "out", "org/named")
    assert not desk.hub.repo("org/named").private
    assert desk.call("apply", recipe, "--push-only", "--public").code == 0
    assert len(desk.titles("org/named")) == 3  # the run's time and name are others


def test_plan_tells_where_to_and_asks_nothing(models: Desk) -> None:
    desk = models
    recipe = write_recipe(desk, output="{path: ./out, push: org/named}")
    assert "org/named" in desk.call("plan", recipe).out
    assert "org/other@x" in desk.call("plan", recipe, "--push", "org/other@x").out
    assert json.loads(desk.call("plan", recipe, "--json").out)["push"] == "org/named"
    assert not desk.hub.log.select()


@pytest.mark.parametrize("token", ["hf_reader", "hf_other", "hf_nobody", ""])
@pytest.mark.parametrize("options", [(), ("--push-only",)])
def test_who_may_not_write_is_told_before_anything_is_read_or_made(
    options: tuple[str, ...], token: str, models: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, hub = models, models.hub
    hub.add_account("hf_reader", "reader", namespaces=["org"], write=False)
    hub.add_account("hf_other", "other")
    for name in "ab":
        hub.add_folder(f"org/{name}", desk.folder / name)
    recipe = write_recipe(desk, a="org/a", b="org/b")
    before = sorted(desk.folder.iterdir())
    monkeypatch.setenv("HF_TOKEN", token)
    code = 5 if token == "hf_nobody" else WRITING  # the sources cannot be had either
    message = desk.refused("apply", recipe, "--push", REPO, *options, code=code)
    assert "hf auth login" in message
    assert sorted(desk.folder.iterdir()) == before
    assert hub.log.sent(host="cdn") < 50_000
    assert REPO not in hub.registry.repos


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("other/x", WRITING),
        ("other/x@mine", WRITING),
        ("org/a@v1", WRITING),
        ("no name", USAGE),
        ("x/y/z", USAGE),
    ],
)
def test_place_that_cannot_be_pushed_to_is_told_before_anything_is_made(
    name: str, code: int, models: Desk
) -> None:
    desk = models
    desk.hub.add_repo("other/x", {"README.md": "theirs"})
    desk.hub.add_repo("org/a", {"README.md": "mine"})
    desk.hub.tag("org/a", "v1")
    before = sorted(desk.folder.iterdir())
    desk.refused("apply", desk.folder / "recipe.yaml", "--push", name, code=code)
    assert sorted(desk.folder.iterdir()) == before


def test_output_that_must_not_be_written_is_told_before_a_repository_is_made(models: Desk) -> None:
    desk = models
    (desk.folder / "out").mkdir()
    (desk.folder / "out" / "mine.txt").write_text("mine")
    desk.refused("apply", desk.folder / "recipe.yaml", "--push", REPO, code=PLAN)
    assert not desk.hub.log.select()


def test_push_that_fails_leaves_the_folder_and_says_what_to_do(models: Desk) -> None:
    desk = models
    desk.hub.faults.add(Fail(403, message="Storage is full"), "/objects/batch", times=None)
    message = desk.refused("apply", desk.folder / "recipe.yaml", "--push", REPO)
    assert "Storage is full" in message
    assert f"the checkpoint is complete in {desk.folder / 'out'}" in message
    assert "the same command sends it" in message
    assert desk.call("verify", "out").code == 0
    desk.hub.faults.clear()
    desk.pushed(desk.folder / "out")


def test_branch_that_moves_while_it_is_merged_is_not_committed_to(models: Desk) -> None:
    desk = models
    desk.hub.add_repo(REPO)
    move = Meanwhile(lambda: desk.hub.commit(REPO, {"other.txt": "mine"}, title="another"))
    desk.hub.faults.add(move, "/objects/batch")
    assert "has moved" in desk.refused("apply", desk.folder / "recipe.yaml", "--push", REPO)
    assert desk.titles() == ["another", "initial commit"]
    desk.pushed(desk.folder / "out")


def test_replacing_a_checkpoint_replaces_it_there_too(models: Desk) -> None:
    desk = models
    recipe = desk.folder / "recipe.yaml"
    assert desk.call("apply", recipe, "--push", REPO).code == 0
    write_recipe(desk, output="{path: ./out, max_shard_size: 200KB}")
    assert desk.call("apply", recipe, "--push", REPO, "--overwrite").code == 0
    desk.assert_holds(desk.folder / "out")
    assert len(desk.titles()) == 3


def test_token_is_in_no_manifest_and_no_card(models: Desk) -> None:
    desk = models
    assert desk.call("apply", desk.folder / "recipe.yaml", "--push", REPO).code == 0
    for name, data in desk.hub.files(REPO).items():
        assert CANARY.encode() not in data, name
        assert str(desk.folder).encode() not in data, name
