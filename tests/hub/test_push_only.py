"""`apply --push-only`: the bytes of a plain `apply`, with one shard on the disk at a time."""

import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.hub.desk import (
    BUSY,
    REPO,
    WRITING,
    Desk,
    desk,
    ended,
    large,
    made_by_apply,
    pushed_files,
    two_models,
    wait_for,
    write_recipe,
)
from tests.hub.faults import Fail, Meanwhile
from tests.hub.loopback import CANARY
from tests.hub.quick import quick

__all__ = ["desk", "quick"]

PLAN = 6

SLOWLY = Meanwhile(lambda: time.sleep(0.2))

RESULTS = {
    "linear": "{linear: {models: [a, b], weights: [0.3, 0.7]}}",
    "slerp": "{slerp: {models: [a, b], t: 0.4}}",
    "ties": "{ties: {base: a, models: [b], density: 0.4, scope: model}}",
    "copies": "{depth_up_scale: {model: a, remove: 1}}",
    "zeros": "{block_expansion: {model: a, every: 1}}",
    "both": "{stack: [{model: {slerp: {models: [a, b], t: 0.4}}}, {model: b, layers: [0, 2]}]}",
}


def push_only(desk: Desk, *options: str, repo: str = REPO) -> tuple[str | Path, ...]:
    """The arguments of a run whose shards are kept nowhere here."""
    return ("apply", desk.folder / "recipe.yaml", "--push", repo, "--push-only", *options)


def interrupted(desk: Desk, *, sent: int = 2) -> str:
    """A run that fails at a shard, others having been sent; what it said."""
    rule = desk.hub.faults.add(Fail(403), method="PUT", skip=sent, times=None)
    message = desk.refused(*push_only(desk))
    assert rule.hits
    desk.hub.faults.clear()
    assert desk.hub.files(REPO).keys() == {".gitattributes"}
    return message


def assert_nothing_is_left(desk: Desk) -> None:
    assert sorted(path.name for path in desk.folder.iterdir()) == ["a", "b", "recipe.yaml", "want"]


def untitled(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same with a card that does not say what the model is called."""
    card = files["README.md"]
    assert b"\n# " in card
    begin = card.index(b"\n# ")
    return files | {"README.md": card[:begin] + card[card.index(b"\n", begin + 1) :]}


@pytest.fixture
def want(desk: Desk) -> dict[str, bytes]:
    """What a plain run makes of the recipe; the manifest without what never is the same."""
    desk.hub.registry.part_size = 1_000_000
    two_models(desk)
    write_recipe(desk)
    return made_by_apply(desk)


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_repository_has_the_bytes_of_a_plain_run_and_nothing_is_left_here(
    result: str, desk: Desk
) -> None:
    two_models(desk)
    write_recipe(desk, result)
    want = made_by_apply(desk)
    assert sum(".safetensors" in name for name in want) > 3
    done = desk.call(*push_only(desk))
    assert done.code == 0, done.err
    assert pushed_files(desk) == want
    assert done.out == f"{desk.hub.endpoint}/{REPO}/commit/{desk.head()}\n"
    assert len(desk.titles()) == 2
    assert desk.hub.repo(REPO).private
    assert desk.uploaded() == large(want)
    assert_nothing_is_left(desk)


def test_single_shard_and_branch_and_place_without_a_path(desk: Desk) -> None:
    two_models(desk)
    write_recipe(desk, output="{}")
    want = made_by_apply(desk)
    assert "model.safetensors" in want
    desk.hub.add_repo(REPO, {"model-00001-of-00001.safetensors": b"old", "LICENSE": "mit"})
    done = desk.call(*push_only(desk, "--threads", "2", repo=f"{REPO}@next"))
    assert done.code == 0, done.err
    there = pushed_files(desk, "next")
    assert there.pop("LICENSE") == b"mit"
    assert untitled(there) == untitled(want)
    assert_nothing_is_left(desk)


def test_work_folder_never_holds_more_than_a_shard_and_small_files(
    desk: Desk, want: dict[str, bytes]
) -> None:
    largest = max(len(data) for name, data in want.items() if name.endswith(".safetensors"))
    sizes = list[int]()
    desk.hub.faults.add(SLOWLY, method="PUT", times=None)
    with desk.start(*push_only(desk)) as process:

        def look() -> bool:
            found = list((desk.folder / ".out.part").rglob("*"))
            sizes.append(sum(blocks(path) for path in found))
            assert not (desk.folder / "out").exists()
            return process.poll() is not None

        wait_for(look, every=0.02)
        done = ended(process)
    assert done.code == 0, done.err
    assert len(sizes) > 20
    assert largest / 2 < max(sizes) < largest + 50_000 < large(want) / 3
    assert pushed_files(desk) == want


def blocks(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0


def test_disk_that_is_too_small_for_the_result_is_enough(
    desk: Desk, want: dict[str, bytes]
) -> None:
    disk = desk.folder.parent / "disk"
    disk.mkdir()
    assert large(want) > 370_000
    mount = f'mount -t tmpfs -o size=190k none {disk} && "$@" && ls -A {disk}'
    wrapper = ("unshare", "--map-root-user", "--mount", "sh", "-ec", mount, "sh")
    recipe = desk.folder / "recipe.yaml"
    plain = desk.run("apply", recipe, "-o", disk / "out", wrapper=wrapper)
    assert plain.code == PLAN
    done = desk.run(*push_only(desk), "-o", disk / "out", wrapper=wrapper)
    assert done.code == 0, done.err
    assert done.out.splitlines() == [f"{desk.hub.endpoint}/{REPO}/commit/{desk.head()}"]
    assert pushed_files(desk) == want


def test_disk_that_is_too_small_for_a_shard_is_refused_before_anything_is_made(
    desk: Desk, want: dict[str, bytes]
) -> None:
    disk = desk.folder.parent / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size=48k none {disk} && "$@"'
    wrapper = ("unshare", "--map-root-user", "--mount", "sh", "-ec", mount, "sh")
    done = desk.run(*push_only(desk), "-o", disk / "out", wrapper=wrapper)
    assert done.code == PLAN, done.err
    assert REPO not in desk.hub.registry.repos


def test_what_was_sent_is_neither_made_nor_sent_again(desk: Desk, want: dict[str, bytes]) -> None:
    message = interrupted(desk)
    assert "goes on from there" in message
    sent = desk.hub.log.select(method="PUT", target="/upload/")
    assert len([x for x in sent if x.status == 200]) == 2
    assert len(list((desk.folder / ".out.part" / "checkpoint").iterdir())) == 1
    desk.hub.log.clear()
    done = desk.call(*push_only(desk))
    assert done.code == 0, done.err
    assert "going on" in done.err
    assert pushed_files(desk) == want
    assert desk.uploaded() + sum(x.received for x in sent if x.status == 200) == large(want)
    assert_nothing_is_left(desk)


def test_leftovers_are_listed_and_removed_by_clean(desk: Desk, want: dict[str, bytes]) -> None:
    interrupted(desk)
    assert ".out.part" in desk.call("clean").out
    desk.call("clean", "--remove")
    assert_nothing_is_left(desk)


@pytest.mark.parametrize("lost", ["all", "one"])
def test_shards_that_the_hub_has_lost_are_made_again(
    lost: str, desk: Desk, want: dict[str, bytes]
) -> None:
    interrupted(desk)
    objects = desk.hub.repo(REPO).lfs
    objects.clear() if lost == "all" else objects.pop()
    done = desk.call(*push_only(desk))
    assert done.code == 0, done.err
    assert "starting afresh" in done.err
    assert pushed_files(desk) == want
    assert_nothing_is_left(desk)


@pytest.mark.parametrize("lost", ["repository", "objects"])
def test_shards_that_are_lost_before_the_commit_are_made_again(
    lost: str, desk: Desk, want: dict[str, bytes]
) -> None:
    hub = desk.hub
    lose = hub.registry.repos.clear if lost == "repository" else lambda: hub.repo(REPO).lfs.clear()
    hub.faults.add(Meanwhile(lose), "/commit/")
    desk.refused(*push_only(desk))
    done = desk.call(*push_only(desk))
    assert done.code == 0, done.err
    assert pushed_files(desk) == want
    assert_nothing_is_left(desk)


def test_shards_go_to_another_repository_as_well(desk: Desk, want: dict[str, bytes]) -> None:
    interrupted(desk)
    done = desk.call(*push_only(desk, repo="org/elsewhere"))
    assert done.code == 0, done.err
    assert untitled(pushed_files(desk, repo="org/elsewhere")) == untitled(want)
    assert desk.hub.files(REPO).keys() == {".gitattributes"}
    assert_nothing_is_left(desk)


def test_run_can_be_made_to_start_over(desk: Desk, want: dict[str, bytes]) -> None:
    interrupted(desk)
    done = desk.call(*push_only(desk, "--no-resume"))
    assert done.code == 0, done.err
    assert "starting afresh" in done.err
    assert pushed_files(desk) == want


def test_changed_recipe_starts_afresh(desk: Desk, want: dict[str, bytes]) -> None:
    interrupted(desk)
    write_recipe(desk, RESULTS["slerp"])
    done = desk.call(*push_only(desk))
    assert done.code == 0, done.err
    assert "recipe or inputs have changed" in done.err
    assert pushed_files(desk) == made_by_apply(desk, "again")


def test_plain_run_after_one_that_kept_nothing(desk: Desk, want: dict[str, bytes]) -> None:
    interrupted(desk)
    done = desk.call("apply", desk.folder / "recipe.yaml")
    assert done.code == 0, done.err
    assert made_by_apply(desk, "out", run=False) == want
    assert not (desk.folder / ".out.part").exists()


def test_run_that_keeps_nothing_goes_on_with_what_a_plain_one_has_left(
    desk: Desk, want: dict[str, bytes]
) -> None:
    """Whose journal says it is complete, or not: the plain one is killed as it would end."""
    kill = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=rename,renameat2")
    kill += ("-e", "inject=rename,renameat2:signal=SIGKILL:when=1")
    recipe = desk.folder / "recipe.yaml"
    assert desk.run("apply", recipe, wrapper=kill).code not in (0, WRITING)
    assert (desk.folder / ".out.part" / "journal").exists()
    done = desk.call(*push_only(desk))
    assert done.code == 0, done.err
    assert "going on" in done.err
    assert pushed_files(desk) == want
    assert_nothing_is_left(desk)


@pytest.mark.parametrize("harm", ["", "config.json", "model.safetensors.index.json", "all", "cut"])
def test_commit_that_failed_is_made_by_the_next_run_without_merging(
    harm: str, desk: Desk, want: dict[str, bytes]
) -> None:
    """Or with it, where somebody has been at what was kept."""
    desk.hub.faults.add(Fail(403), target="/commit/", times=None)
    desk.refused(*push_only(desk))
    desk.hub.faults.clear()
    desk.hub.log.clear()
    kept = desk.folder / ".out.part" / "checkpoint"
    for path in kept.iterdir() if harm in ("all", "cut") else [kept / harm] if harm else []:
        path.write_bytes(path.read_bytes()[:-1]) if harm == "cut" else path.unlink()
    done = desk.call(*push_only(desk))
    assert done.code == 0, done.err
    assert pushed_files(desk) == want
    assert not desk.puts()
    assert ("going on" in done.err) == (not harm)
    assert_nothing_is_left(desk)


def test_branch_that_moves_while_shards_are_made_is_told_and_nothing_is_lost(
    desk: Desk, want: dict[str, bytes]
) -> None:
    desk.hub.add_repo(REPO)
    move = Meanwhile(lambda: desk.hub.commit(REPO, {"other.txt": "mine"}, title="another"))
    desk.hub.faults.add(move, method="PUT")
    assert "has moved" in desk.refused(*push_only(desk))
    assert desk.titles() == ["another", "initial commit"]
    desk.hub.log.clear()
    done = desk.call(*push_only(desk))
    assert done.code == 0, done.err
    assert not desk.puts()
    assert pushed_files(desk) == want | {"other.txt": b"mine"}


def test_two_at_once_are_one_too_many(desk: Desk, want: dict[str, bytes]) -> None:
    go = threading.Event()
    rule = desk.hub.faults.add(Meanwhile(lambda: go.wait(30)), method="PUT")
    with desk.start(*push_only(desk)) as process:
        wait_for(lambda: rule.hits)
        desk.refused(*push_only(desk), code=BUSY)
        desk.refused("apply", desk.folder / "recipe.yaml", code=BUSY)
        assert "in use" in desk.call("clean", "--remove").out
        go.set()
        assert ended(process).code == 0
    assert pushed_files(desk) == want
    assert_nothing_is_left(desk)


def test_checkpoint_at_the_output_path_stays(desk: Desk, want: dict[str, bytes]) -> None:
    assert desk.call("apply", desk.folder / "recipe.yaml", "-o", "out").code == 0
    before = {path: path.stat().st_mtime_ns for path in (desk.folder / "out").iterdir()}
    done = desk.call(*push_only(desk))
    assert done.code == 0, done.err
    assert before == {path: path.stat().st_mtime_ns for path in (desk.folder / "out").iterdir()}
    assert pushed_files(desk) == want


def test_tensors_come_from_the_hub_and_go_to_it_and_none_is_stored(desk: Desk) -> None:
    two_models(desk)
    for name in "ab":
        desk.hub.add_folder(f"org/{name}", desk.folder / name)
    write_recipe(desk, a="org/a", b="org/b")
    want = made_by_apply(desk)
    subprocess.run(["rm", "-r", str(desk.hub.home / "hub")], check=True)
    done = desk.call(*push_only(desk, "--stream"))
    assert done.code == 0, done.err
    there = pushed_files(desk)
    assert {n: d for n, d in there.items() if "safetensors" in n} == {
        n: d for n, d in want.items() if "safetensors" in n
    }
    assert not list(desk.hub.home.rglob("*.safetensors"))
    assert_nothing_is_left(desk)


def test_model_grows_in_its_own_repository(desk: Desk) -> None:
    two_models(desk)
    write_recipe(desk, RESULTS["copies"])
    want = made_by_apply(desk)
    desk.hub.add_folder(REPO, desk.folder / "a")
    write_recipe(desk, RESULTS["copies"], a=REPO)
    done = desk.call(*push_only(desk, "--stream", "-q"))
    assert (done.code, done.err) == (0, "")
    there = pushed_files(desk)
    assert {n: d for n, d in there.items() if "safetensors" in n} == {
        n: d for n, d in want.items() if "safetensors" in n
    }
    assert_nothing_is_left(desk)


def test_who_may_not_write_is_told_before_a_work_folder_is_made(
    desk: Desk, want: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.hub.add_account("hf_other", "other")
    for token in ("hf_other", "", "hf_nobody"):
        monkeypatch.setenv("HF_TOKEN", token)
        assert "hf auth login" in desk.refused(*push_only(desk))
        assert_nothing_is_left(desk)
    monkeypatch.setenv("HF_TOKEN", CANARY)
    message = desk.refused("apply", desk.folder / "recipe.yaml", "--push-only", code=PLAN)
    assert "no repository to push to" in message
