"""What a push refuses and says, and the settings of the process, which are left as they were."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    get_session,
)

from tensorsurgeon import api
from tensorsurgeon.errors import PushError, VerifyError
from tests.hub.desk import (
    CARD,
    INITIAL,
    REPO,
    WRITING,
    Desk,
    desk,
    two_models,
    write_recipe,
)
from tests.hub.faults import Answer, Fail, Fault, LoseReply, Reset
from tests.hub.quick import quick

__all__ = ["desk", "quick"]

USAGE = 2

ENDLESS = "---\nlicense: mit\n"
"""A card whose front matter has no end."""

SENDS = "/upload/|/part/|/objects/batch|/preupload/|/commit/"

KINDS = ("push", "apply --push", "apply --push-only")

each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def models(desk: Desk) -> Desk:
    two_models(desk)
    write_recipe(desk)
    return desk


def command(desk: Desk, kind: str) -> tuple[str | Path, ...]:
    if kind == "push":
        return ("push", desk.folder / "a", REPO)
    only = ("--push-only",) if kind.endswith("only") else ()
    return ("apply", desk.folder / "recipe.yaml", "--push", REPO, *only)


@pytest.mark.parametrize("kind", KINDS[:2])
def test_card_that_the_hub_refuses_is_told_before_anything_is_sent(kind: str, models: Desk) -> None:
    desk = models
    card = desk.folder / "a" / "README.md"
    if kind != "push":
        assert desk.call("apply", desk.folder / "recipe.yaml").code == 0
        card = desk.folder / "out" / "README.md"
    card.write_text(ENDLESS)
    message = desk.refused(*command(desk, kind))
    assert "README.md: is refused: the front matter has no end" in message
    assert "nothing was sent" in message
    assert not desk.hub.log.select(target=SENDS)
    assert desk.hub.files(REPO).keys() == INITIAL
    card.write_text(CARD)
    assert desk.call(*command(desk, kind)).code == 0
    assert desk.hub.files(REPO)["README.md"] == CARD.encode()


def test_card_that_is_there_already_is_not_asked_about_where_nothing_is_sent(desk: Desk) -> None:
    folder = desk.model()
    desk.pushed(folder)
    desk.hub.log.clear()
    desk.pushed(folder)
    assert not desk.hub.log.select(target="/validate-yaml")


@each_kind
@pytest.mark.parametrize("body", ["<html>log in to the network</html>", "{}", "[]", '{"a": 1}'])
def test_strange_answer_to_the_commit_is_not_said_of_the_card(
    body: str, kind: str, models: Desk
) -> None:
    desk = models
    desk.hub.faults.add(Answer(body.encode()), "/commit/", times=None)
    message = desk.refused(*command(desk, kind))
    assert "does not answer like a Hub" in message
    assert "README.md" not in message
    assert desk.hub.files(REPO).keys() == INITIAL


@each_kind
@pytest.mark.parametrize("disabled", ["", "0"])
def test_files_go_by_the_protocol_that_was_planned_with_whatever_the_environment_says(
    disabled: str, kind: str, models: Desk
) -> None:
    desk = models
    done = desk.run(*command(desk, kind), HF_HUB_DISABLE_XET=disabled)
    assert done.code == 0, done.err
    assert not desk.hub.log.select(target="xet")
    assert desk.puts()
    assert len(desk.titles()) == 2


@each_kind
def test_what_was_there_before_and_goes_is_told(kind: str, models: Desk) -> None:
    desk = models
    stale = {"model.safetensors": b"old", "model-00001-of-00002.safetensors": b"old"}
    files = {"README.md": "---\nlicense: mit\n---\nMine.\n", "LICENSE": "mit", **stale}
    desk.hub.add_repo(REPO, files)
    done = desk.call(*command(desk, kind))
    assert done.code == 0, done.err
    for name in stale:
        assert f"note: removed {name}, weights of an earlier model" in done.err
    assert "note: replaced README.md; what it said before is in" in done.err
    assert "LICENSE" not in done.err
    there = desk.hub.files(REPO)
    assert not stale.keys() & there.keys()
    assert there["LICENSE"] == b"mit"


@each_kind
def test_what_was_there_before_and_stays_is_not_told(kind: str, models: Desk) -> None:
    desk = models
    desk.hub.add_repo(REPO, {"LICENSE": "mit", "model.bin": b"\x80\x04."})
    done = desk.call(*command(desk, kind))
    assert done.code == 0, done.err
    assert "removed" not in done.err
    assert "replaced" not in done.err


def test_card_that_stays_as_it_is_is_not_told_to_be_replaced(desk: Desk) -> None:
    folder = desk.model()
    desk.hub.add_repo(REPO, {"README.md": CARD})
    assert "replaced" not in desk.pushed(folder).err


@contextmanager
def as_before() -> Iterator[None]:
    """The process's settings of the client are the same afterwards."""
    constants.HF_HUB_DISABLE_XET = False  # put back by the fixture `client`
    get_session().timeout = 7.5
    enable_progress_bars()
    yield
    assert constants.HF_HUB_DISABLE_XET is False
    assert not are_progress_bars_disabled()
    assert get_session().timeout.read == get_session().timeout.connect == 7.5


def test_settings_of_the_process_are_as_before_after_a_push(models: Desk) -> None:
    recipe = models.folder / "recipe.yaml"
    with as_before():
        pushed = api.push(models.folder / "a", REPO)
        assert pushed.is_new
        api.apply(api.plan(recipe, push=f"{REPO}@one"))
        api.apply(api.plan(recipe, push=f"{REPO}@two", push_only=True))


@pytest.mark.parametrize("target", ["/api/models/org/out", "/objects/batch", "/commit/"])
@pytest.mark.parametrize("fault", [Fail(403), Fail(500), Reset(None)])
def test_settings_of_the_process_are_as_before_after_a_failure(
    fault: Fault, target: str, models: Desk
) -> None:
    models.hub.faults.add(fault, target, times=None)
    recipe = models.folder / "recipe.yaml"
    with as_before():
        with pytest.raises(PushError):
            api.push(models.folder / "a", REPO)
        with pytest.raises(PushError):
            api.apply(api.plan(recipe, push=REPO, push_only=True))


def test_settings_of_the_process_are_as_before_where_a_reply_is_lost(models: Desk) -> None:
    models.hub.faults.add(LoseReply(reset=True), "/commit/")
    with as_before():
        assert api.push(models.folder / "a", REPO).is_new


def test_bars_that_were_off_stay_off(models: Desk) -> None:
    disable_progress_bars()
    try:
        api.push(models.folder / "a", REPO)
        assert are_progress_bars_disabled()
    finally:
        enable_progress_bars()


def test_damage_is_an_error_of_its_own_and_can_be_pushed_if_asked(models: Desk) -> None:
    api.apply(api.plan(models.folder / "recipe.yaml"))
    out = models.folder / "out"
    (out / "recipe.yaml").write_text("models: {}\n")
    with pytest.raises(VerifyError) as raised:
        api.push(out, REPO)
    assert any("--no-verify" in note for note in raised.value.__notes__)
    assert api.push(out, REPO, check=False).has_made_repo


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--no-push", "--push", REPO), "--no-push"),
        (("--no-push", "--push-only"), "--no-push"),
        (("--no-push", "--push", REPO, "--push-only"), "--no-push"),
        (("--public",), "--public goes with --push"),
        (("--public", "--no-push"), "--public goes with --push"),
        *(
            (("--push", name), "is no repository")
            for name in ("out", "", "org/", "/out", "org/out@", "org/a/b", "org/a b", "@x")
        ),
        (("--push",), "--push"),
    ],
)
@pytest.mark.parametrize("what", ["apply", "plan"])
def test_options_that_do_not_fit_are_refused_before_anything_is_asked_or_made(
    what: str, options: tuple[str, ...], said: str, models: Desk
) -> None:
    desk = models
    if what == "plan" and "--public" in options:
        said = "No such option"
    before = sorted(desk.folder.iterdir())
    message = desk.refused(what, desk.folder / "recipe.yaml", *options, code=USAGE)
    assert said in message
    assert sorted(desk.folder.iterdir()) == before
    assert not desk.hub.log.select()


@pytest.mark.parametrize("what", ["apply", "plan"])
@pytest.mark.parametrize("push", ["org/out@", "only", "a b/c", "https://hub.example/org/out"])
def test_malformed_repository_of_a_recipe_is_refused(push: str, what: str, models: Desk) -> None:
    recipe = write_recipe(models, output=f"{{path: ./out, push: '{push}'}}")
    assert "recipe.yaml:3" in models.refused(what, recipe, code=3)
    assert not models.hub.log.select()


def test_public_goes_with_a_repository_of_the_recipe(models: Desk) -> None:
    recipe = write_recipe(models, output=f"{{path: ./out, push: {REPO}}}")
    refused = models.refused("apply", recipe, "--no-push", "--public", code=USAGE)
    assert "--public goes with --push" in refused
    assert models.call("apply", recipe, "--public").code == 0
    assert not models.hub.repo(REPO).private


def test_exit_code_of_writing_is_that_of_a_push(models: Desk) -> None:
    models.hub.faults.add(Fail(403, message="No space is left"), "/objects/batch", times=None)
    for kind in KINDS:
        done = models.call(*command(models, kind))
        assert (done.code, done.out) == (WRITING, "")
        assert "No space is left" in done.err
