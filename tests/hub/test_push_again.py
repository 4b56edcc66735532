"""A push that failed or was stopped after the merge: the same command sends what is there."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hub.desk import (
    CARD,
    DAMAGED,
    INITIAL,
    REPO,
    Desk,
    desk,
    ended,
    files_of,
    made_by_apply,
    pushed_files,
    two_models,
    wait_for,
    write_recipe,
)
from tests.hub.faults import Fail, Meanwhile, Stall
from tests.hub.quick import quick

__all__ = ["desk", "quick"]

PLAN = 6

FINISHED = "an earlier run had finished it already"

SENDS = "/upload/|/part/|/objects/batch|/preupload/|/commit/"


def stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What changes of a file that is written or replaced, by name."""
    found = {path.name: path.stat() for path in [folder, *folder.iterdir()]}
    return {name: (s.st_ino, s.st_mtime_ns, s.st_ctime_ns) for name, s in found.items()}


def arguments(desk: Desk, *options: str, repo: str = REPO) -> tuple[str | Path, ...]:
    return ("apply", desk.folder / "recipe.yaml", "--push", repo, *options)


def interrupted(desk: Desk) -> None:
    """Ctrl-C while shards are on their way."""
    rule = desk.hub.faults.add(Stall(60), "/upload/", times=None)
    with desk.start(*arguments(desk)) as process:
        wait_for(lambda: rule.hits)
        process.send_signal(signal.SIGINT)
        done = ended(process, timeout=8)
    assert done.code == 130, done.err
    assert "is complete in" in done.err
    assert "the same command sends it" in done.err


def killed(desk: Desk) -> None:
    with desk.start(*arguments(desk)) as process:
        desk.hub.faults.add(Meanwhile(process.kill), "/upload/", times=None)
        assert ended(process).code == -signal.SIGKILL


def refused(desk: Desk) -> None:
    desk.hub.faults.add(Fail(403), "/commit/", times=None)
    assert "the same command sends it" in desk.refused(*arguments(desk))


def not_pushed(desk: Desk) -> None:
    """A plain run of the same recipe."""
    assert desk.call("apply", desk.folder / "recipe.yaml").code == 0


ENDS: dict[str, Callable[[Desk], None]] = {
    "interrupted": interrupted,
    "killed": killed,
    "refused": refused,
    "not pushed": not_pushed,
}


@pytest.fixture
def models(desk: Desk) -> Desk:
    two_models(desk)
    write_recipe(desk)
    return desk


@pytest.fixture
def failed(models: Desk) -> Desk:
    """A desk whose output folder is made, its repository having nothing of it."""
    refused(models)
    models.hub.faults.clear()
    models.hub.log.clear()
    return models


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_same_command_sends_what_is_there_and_merges_nothing(
    end: Callable[[Desk], None], models: Desk
) -> None:
    desk, out = models, models.folder / "out"
    end(desk)
    assert not (desk.folder / ".out.part").exists()
    assert desk.hub.files(REPO).keys() == INITIAL if end is not not_pushed else True
    before = stamps(out)
    desk.hub.faults.clear()
    done = desk.call(*arguments(desk))
    assert done.code == 0, done.err
    assert FINISHED in done.err
    assert stamps(out) == before
    assert not (desk.folder / ".out.part").exists()
    assert pushed_files(desk) == made_by_apply(desk, "out", run=False)
    assert len(desk.titles()) == 2
    assert done.out == f"{desk.hub.endpoint}/{REPO}/commit/{desk.head()}\n"


def test_same_command_sends_nothing_twice(models: Desk) -> None:
    desk = models
    assert desk.call(*arguments(desk)).code == 0
    first, before = desk.head(), stamps(desk.folder / "out")
    desk.hub.log.clear()
    done = desk.call(*arguments(desk))
    assert done.code == 0, done.err
    assert desk.head() == first
    assert done.out == f"{desk.hub.endpoint}/{REPO}/commit/{first}\n"
    assert not desk.hub.log.select(target=SENDS)
    assert stamps(desk.folder / "out") == before


def test_other_repository_gets_the_same_folder(failed: Desk) -> None:
    done = failed.call(*arguments(failed, repo="org/other"))
    assert done.code == 0, done.err
    assert FINISHED in done.err
    failed.assert_holds(failed.folder / "out", "org/other")
    assert failed.hub.files(REPO).keys() == INITIAL


@pytest.mark.parametrize("number", [0, 2, -1])
def test_folder_that_was_damaged_meanwhile_is_not_sent(number: int, failed: Desk) -> None:
    desk, shards = failed, sorted((failed.folder / "out").glob("*.safetensors"))
    data = shards[number].read_bytes()
    shards[number].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    message = desk.refused(*arguments(desk), code=DAMAGED)
    assert shards[number].name in message
    assert "--no-verify" in message
    assert not desk.hub.log.select(target=SENDS)
    assert desk.hub.files(REPO).keys() == INITIAL
    shards[number].write_bytes(data)
    assert desk.call(*arguments(desk)).code == 0
    desk.assert_holds(desk.folder / "out")


def test_damaged_folder_is_not_called_complete(failed: Desk) -> None:
    shard = min((failed.folder / "out").glob("*.safetensors"))
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    message = failed.refused(*arguments(failed), code=DAMAGED)
    assert "is complete" not in message
    assert "the same command sends it" not in message


def test_card_that_was_edited_meanwhile_is_pushed(failed: Desk) -> None:
    (failed.folder / "out" / "README.md").write_text(CARD)
    before = stamps(failed.folder / "out")
    done = failed.call(*arguments(failed))
    assert done.code == 0, done.err
    assert failed.hub.files(REPO)["README.md"] == CARD.encode()
    failed.assert_holds(failed.folder / "out")
    assert stamps(failed.folder / "out") == before


@pytest.mark.parametrize("harm", ["card", "shard"])
def test_folder_is_made_anew_where_it_shall_be_overwritten(harm: str, failed: Desk) -> None:
    desk, out = failed, failed.folder / "out"
    want = made_by_apply(desk, "out", run=False)
    path = out / "README.md" if harm == "card" else min(out.glob("*.safetensors"))
    path.write_bytes(b"?")
    done = desk.call(*arguments(desk, "--overwrite"))
    assert done.code == 0, done.err
    assert FINISHED not in done.err
    assert made_by_apply(desk, "out", run=False) == want
    assert pushed_files(desk) == want


@pytest.mark.parametrize("harm", ["", "recipe", "source", "manifest"])
def test_folder_of_other_work_is_not_sent(harm: str, failed: Desk) -> None:
    """Nor that of the same work, where nothing shall be pushed."""
    desk, out = failed, failed.folder / "out"
    if harm == "recipe":
        write_recipe(desk, "{slerp: {models: [a, b], t: 0.4}}")
    elif harm == "source":
        desk.model("b", seed=9)
    elif harm == "manifest":
        (out / "tensorsurgeon.json").unlink()
    before = stamps(out)
    options = arguments(desk) if harm else ("apply", desk.folder / "recipe.yaml")
    assert "is already there" in desk.refused(*options, code=PLAN)
    assert stamps(out) == before
    assert not desk.hub.log.select()


def test_recipe_that_names_the_repository_goes_on_unless_told_not_to_push(models: Desk) -> None:
    desk = models
    recipe = write_recipe(desk, output=f"{{path: ./out, max_shard_size: 80KB, push: {REPO}}}")
    desk.hub.faults.add(Fail(403), "/commit/", times=None)
    desk.refused("apply", recipe)
    desk.hub.faults.clear()
    assert "is already there" in desk.refused("apply", recipe, "--no-push", code=PLAN)
    done = desk.call("apply", recipe)
    assert done.code == 0, done.err
    assert FINISHED in done.err
    desk.assert_holds(desk.folder / "out")


def damage(folder: Path) -> None:
    shard = min(folder.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize("kind", ["push", "apply"])
def test_repository_is_not_made_for_a_damaged_folder(kind: str, models: Desk) -> None:
    desk = models
    not_pushed(desk)
    damage(desk.folder / "out")
    command = ("push", desk.folder / "out", REPO) if kind == "push" else arguments(desk)
    desk.refused(*command, code=DAMAGED)
    assert REPO not in desk.hub.registry.repos


@pytest.mark.parametrize("kind", ["push", "apply", "apply only"])
def test_repository_is_not_made_without_a_token(
    kind: str, models: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = models
    not_pushed(desk)
    monkeypatch.setenv("HF_TOKEN", "")
    command = ("push", desk.folder / "out", REPO) if kind == "push" else arguments(desk)
    only = ("--push-only",) if kind == "apply only" else ()
    assert "without a token" in desk.refused(*command, *only)
    assert REPO not in desk.hub.registry.repos
    assert not desk.hub.log.select(method="POST")


def test_folder_that_is_pushed_by_hand_is_sent_as_it_is_if_asked(models: Desk) -> None:
    desk, out = models, models.folder / "out"
    not_pushed(desk)
    (out / "recipe.yaml").write_text("models: {}\n")
    (out / "added.safetensors").write_bytes(min(out.glob("*.safetensors")).read_bytes())
    message = desk.refused("push", out, REPO, code=DAMAGED)
    assert "recipe.yaml" in message
    assert "'tensorsurgeon push --no-verify' sends the folder as it is" in message
    assert REPO not in desk.hub.registry.repos
    desk.pushed(out, "--no-verify")
    there = desk.hub.files(REPO)
    assert there.keys() - INITIAL == files_of(out).keys()
    assert there["recipe.yaml"] == b"models: {}\n"
