"""A folder put to the Hub: in one commit, whole, and nothing of it twice."""

import json
import os
import shutil
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from tests.hub.content import Content
from tests.hub.desk import CARD, DAMAGED, REPO, WRITING, Desk, desk, files_of, large, wait_for
from tests.hub.faults import Meanwhile
from tests.hub.loopback import CANARY
from tests.hub.quick import quick

__all__ = ["desk", "quick"]

USAGE, CHECKPOINT = 2, 5


def test_new_repository_is_private_and_gets_one_commit_with_all_files(desk: Desk) -> None:
    folder = desk.model()
    done = desk.run("push", folder, REPO)
    assert done.code == 0, done.err
    desk.assert_holds(folder)
    assert desk.hub.repo(REPO).private
    assert [title.partition(" 0")[0] for title in desk.titles()] == [
        "Upload with TensorSurgeon",
        "initial commit",
    ]
    assert done.out == f"{desk.hub.endpoint}/{REPO}/commit/{desk.head()}\n"


def test_commit_is_asked_for_once_and_after_every_large_file_is_there(desk: Desk) -> None:
    folder = desk.model()
    desk.pushed(folder)
    log = desk.hub.log.select()
    (commit,) = desk.commits()
    assert all(log.index(put) < log.index(commit) for put in desk.puts())
    assert any("/part/" in put.target for put in desk.puts())
    assert any("/upload/" in put.target for put in desk.puts())
    assert desk.uploaded() == large(files_of(folder))


def test_what_is_there_is_compared_by_digest_after_the_commit(desk: Desk) -> None:
    desk.pushed(desk.model())
    log = desk.hub.log.select()
    after = log[log.index(desk.commits()[0]) + 1 :]
    assert [x for x in after if x.method == "GET" and desk.head() in x.target]


def test_second_push_of_the_same_folder_sends_nothing(desk: Desk) -> None:
    folder = desk.model()
    first = desk.pushed(folder)
    desk.hub.log.clear()
    again = desk.pushed(folder)
    assert again.out == first.out
    assert "nothing is sent" in again.err
    assert not desk.hub.log.select(method="PUT")
    assert not desk.commits()


def test_only_the_shard_that_has_changed_is_sent(desk: Desk) -> None:
    folder = desk.model()
    desk.pushed(folder)
    shard = sorted(folder.glob("*.safetensors"))[1]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    desk.hub.log.clear()
    desk.pushed(folder)
    assert desk.uploaded() == len(data)
    assert len(desk.titles()) == 3


def test_large_file_under_another_name_is_not_sent_again(desk: Desk) -> None:
    folder = desk.model(shards=1)
    desk.pushed(folder)
    desk.hub.log.clear()
    (folder / "copies").mkdir()
    shutil.copy(folder / "model.safetensors", folder / "copies" / "same.safetensors")
    desk.pushed(folder)
    assert not desk.puts()


@pytest.mark.parametrize(("before", "after"), [(5, 3), (1, 3), (3, 1), (3, 5)])
def test_weights_of_an_earlier_model_go_and_other_files_stay(
    before: int, after: int, desk: Desk
) -> None:
    old = desk.model("old", shards=before)
    (old / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (old / "onnx").mkdir()
    (old / "onnx" / "model.safetensors").write_bytes((old / "config.json").read_bytes())
    desk.pushed(old)
    desk.hub.commit(REPO, {"LICENSE": "mit"})
    new = desk.model("new", shards=after, seed=1)
    done = desk.call("push", new, REPO)
    assert done.code == 0, done.err
    there = desk.hub.files(REPO)
    weights = {name for name in there if ".safetensors" in name and "/" not in name}
    assert weights == {name for name in files_of(new) if ".safetensors" in name}
    assert {"LICENSE", "pytorch_model.bin", "onnx/model.safetensors"} <= there.keys()
    assert len(desk.titles()) == 4
    gone = {name for name in files_of(old) if ".safetensors" in name} - weights
    for name in gone - {"onnx/model.safetensors"}:
        assert f"note: removed {name}" in done.err


def test_public_is_for_new_repositories_only(desk: Desk) -> None:
    folder = desk.model()
    desk.pushed(folder, "--public")
    assert not desk.hub.repo(REPO).private
    desk.hub.add_repo("org/open", {"README.md": CARD})
    desk.hub.add_repo("org/closed", {"README.md": CARD}, private=True)
    desk.pushed(folder, repo="org/open")
    desk.pushed(folder, "--public", repo="org/closed")
    assert not desk.hub.repo("org/open").private
    assert desk.hub.repo("org/closed").private


def test_message_is_the_commits_and_quiet_is_quiet(desk: Desk) -> None:
    done = desk.pushed(desk.model(), "-m", "Grow it", "-q")
    assert desk.titles()[0] == "Grow it"
    assert done.err == ""


def test_hidden_files_stay_and_folders_go_along(desk: Desk) -> None:
    folder = desk.model()
    for name in (".env", ".git/config", ".cache/huggingface/x", "sub/.hidden", "sub/.git/HEAD"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a secret")
    for name in ("sub/deeper/notes.txt", "a name & ünïcode#1%20.txt", "sub/empty"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("" if name.endswith("empty") else "a note")
    (folder / "link.json").symlink_to("config.json")
    desk.pushed(folder)
    want = {*files_of(folder), ".gitattributes"}
    assert desk.hub.files(REPO).keys() == want
    assert not any("hidden" in name or ".git/" in name for name in want)


def test_large_files_that_are_no_shards_arrive(desk: Desk) -> None:
    """More than 10 MB is for the store of large files; 2 MB goes along with the commit."""
    folder = desk.model()
    (folder / "tokenizer.model").write_bytes(os.urandom(10_500_000))
    (folder / "merges.txt").write_bytes(b"a b\n" * 500_000)
    (folder / "twin.model").write_bytes((folder / "tokenizer.model").read_bytes())
    desk.hub.registry.part_size = 4_000_000
    desk.pushed(folder)
    tree = desk.hub.repo(REPO).resolve("main").tree
    assert tree["tokenizer.model"].lfs
    assert not tree["merges.txt"].lfs


@pytest.mark.parametrize("place", [".", "sub"])
@pytest.mark.parametrize("kind", ["link that leaves", "link to nothing", "pipe", "folder"])
def test_what_is_no_file_of_the_folder_is_refused(kind: str, place: str, desk: Desk) -> None:
    folder, bad = desk.model(), desk.model() / place / "bad.json"
    bad.parent.mkdir(exist_ok=True)
    (desk.folder / "secret.json").write_text("a secret")
    if kind == "pipe":
        os.mkfifo(bad)
    elif kind == "folder":
        (desk.folder / "elsewhere").mkdir()
        bad.symlink_to(desk.folder / "elsewhere")
    else:
        bad.symlink_to(desk.folder / "secret.json" if kind == "link that leaves" else "nothing")
    message = desk.refused("push", folder, REPO, code=CHECKPOINT if place == "." else WRITING)
    assert "bad.json" in message
    assert not desk.puts()
    assert not desk.commits()


@pytest.mark.parametrize("branch", ["next", "feature/wide", "refs/pr/1"])
def test_branch_is_made_where_it_is_absent_and_main_stays(branch: str, desk: Desk) -> None:
    folder = desk.model()
    desk.hub.add_repo(REPO, {"README.md": CARD})
    main = desk.head()
    if branch.startswith("refs"):
        desk.hub.branch(REPO, branch)
    desk.pushed(folder, repo=f"{REPO}@{branch}")
    assert desk.head() == main
    assert desk.head(branch=branch) != main
    desk.hub.log.clear()
    desk.pushed(folder, repo=f"{REPO}@{branch}")
    assert not desk.puts()


def test_branch_of_a_new_repository_is_made(desk: Desk) -> None:
    desk.pushed(desk.model(), repo=f"{REPO}@next")
    assert desk.hub.files(REPO).keys() == {".gitattributes"}


@pytest.mark.parametrize("kind", ["tag", "commit"])
def test_tag_or_commit_is_no_branch_and_is_refused_before_anything_is_sent(
    kind: str, desk: Desk
) -> None:
    desk.hub.add_repo(REPO, {"README.md": CARD})
    desk.hub.tag(REPO, "v1")
    revision = "v1" if kind == "tag" else desk.head()
    message = desk.refused("push", desk.model(), f"{REPO}@{revision}")
    assert "branch" in message
    assert not desk.puts()


@pytest.mark.parametrize(
    "name",
    ["out", "", "org/", "/out", "org/out@", "org/out/x", "org/a b", "org/a..b", "org/a--b", "@x"],
)
def test_malformed_name_is_refused_without_a_request(name: str, desk: Desk) -> None:
    done = desk.call("push", desk.model(), name)
    assert (done.code, done.out) in ((USAGE, ""), (WRITING, ""))
    assert "is no repository" in done.err or "is no name of a repository" in done.err
    assert not desk.hub.log.select()


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ("", "without a token"),
        ("hf_nobody", "does not accept the token"),
        ("hf_reader", "may write"),
        ("hf_other", "may write"),
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_who_may_not_write_is_told_before_anything_is_sent(
    who: str, said: str, exists: bool, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = desk.hub
    hub.add_account("hf_reader", "reader", namespaces=["org"], write=False)
    hub.add_account("hf_other", "other")
    if exists:
        hub.add_repo(REPO, {"README.md": CARD})
    monkeypatch.setenv("HF_TOKEN", who)
    message = desk.refused("push", desk.model(), REPO)
    assert said in message
    assert "hf auth login" in message
    assert not who or who not in message
    assert (REPO in hub.registry.repos) == exists
    assert not [x for x in hub.log.select() if x.method == "PUT" or "/commit/" in x.target]


@pytest.mark.parametrize("kind", ["private", "gated", "open", "branch"])
def test_repository_of_somebody_else_is_refused(kind: str, desk: Desk) -> None:
    files = {"README.md": CARD}
    desk.hub.add_repo("other/x", files, private=kind == "private", gated=kind == "gated")
    name = "other/x@mine" if kind == "branch" else "other/x"
    message = desk.refused("push", desk.model(), name)
    assert "other/x" in message
    assert "hf auth login" in message
    assert desk.hub.files("other/x").keys() == {"README.md"}


def test_hub_that_cannot_be_reached_is_told_without_what_is_secret_in_its_address(
    desk: Desk,
) -> None:
    done = desk.run("push", desk.model(), REPO, HF_ENDPOINT="http://user:s3cr3t@127.0.0.1:9")
    assert (done.code, done.out) == (WRITING, "")
    assert "http://127.0.0.1:9" in done.err
    assert "s3cr3t" not in done.err


def test_snapshot_in_the_cache_of_the_hub_can_be_pushed(desk: Desk) -> None:
    """All files of it are links out of the folder."""
    desk.hub.add_folder("org/source", desk.model())
    snapshot = Path(snapshot_download("org/source"))
    assert (snapshot / "config.json").is_symlink()
    desk.pushed(snapshot)


def test_offline_is_told(desk: Desk) -> None:
    done = desk.run("push", desk.model(), REPO, HF_HUB_OFFLINE="1")
    assert done.code == WRITING
    assert "HF_HUB_OFFLINE" in done.err
    assert not desk.hub.log.select()


@pytest.mark.parametrize("lacking", ["config.json", "model-00002-of-00003.safetensors", "all"])
def test_folder_that_is_no_checkpoint_is_refused_without_a_request(
    lacking: str, desk: Desk
) -> None:
    folder = desk.model()
    if lacking == "all":
        shutil.rmtree(folder)
    else:
        (folder / lacking).unlink()
    desk.refused("push", folder, REPO, code=CHECKPOINT)
    assert not desk.hub.log.select()


def merged(desk: Desk) -> Path:
    """A checkpoint that has a manifest."""
    desk.model("a")
    recipe = desk.folder / "recipe.yaml"
    recipe.write_text(
        "models: {a: ./a}\nresult: {depth_up_scale: {model: a, remove: 1}}\n"
        "output: {path: ./out, max_shard_size: 150KB}\n"
    )
    assert desk.call("apply", recipe).code == 0
    return desk.folder / "out"


def test_damaged_checkpoint_with_a_manifest_is_not_sent(desk: Desk) -> None:
    folder = merged(desk)
    shard = sorted(folder.glob("*.safetensors"))[-1]
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    message = desk.refused("push", folder, REPO, code=DAMAGED)
    assert shard.name in message
    assert not desk.puts()
    assert not desk.commits()
    shard.write_bytes(data)
    desk.pushed(folder)
    assert json.loads(desk.hub.files(REPO)["tensorsurgeon.json"])


def test_what_was_pushed_can_be_read_again(desk: Desk) -> None:
    folder = merged(desk)
    desk.pushed(folder)
    recipe = desk.folder / "again.yaml"
    recipe.write_text(
        f"models: {{a: {REPO}}}\nresult: {{stack: [{{model: a}}]}}\n"
        "output: {path: ./again, max_shard_size: 150KB}\n"
    )
    assert desk.call("apply", recipe).code == 0
    for shard in folder.glob("*.safetensors"):
        assert (desk.folder / "again" / shard.name).read_bytes() == shard.read_bytes()


def test_card_whose_front_matter_is_refused_is_told(desk: Desk) -> None:
    folder = desk.model()
    (folder / "README.md").write_text("---\nlicense: mit\n")
    assert "README.md" in desk.refused("push", folder, REPO)
    assert desk.hub.files(REPO).keys() == {".gitattributes"}


def test_card_that_is_no_text_is_told(desk: Desk) -> None:
    folder = desk.model()
    (folder / "README.md").write_bytes(b"---\n\xff\xfe\n---\n")
    assert "README.md" in desk.refused("push", folder, REPO)


def test_file_that_the_repository_ignores_is_an_error(desk: Desk) -> None:
    folder = desk.model()
    (folder / "notes.txt").write_text("a note")
    desk.hub.registry.ignored.add("notes.txt")
    message = desk.refused("push", folder, REPO)
    assert "notes.txt" in message
    assert ".gitignore" in message


def test_large_file_takes_little_memory_and_the_token_is_no_argument(desk: Desk) -> None:
    desk.hub.registry.part_size = 1_000_000_000
    folder = desk.model(shards=1)
    with (folder / "tokenizer.model").open("wb") as file:
        file.truncate(200_000_000)
    content = Content.of(folder / "tokenizer.model").sha256
    peak, arguments = 0, set[bytes]()

    def look() -> bool:
        nonlocal peak
        status = Path(f"/proc/{process.pid}/status").read_text()
        if (at := status.find("VmHWM:")) >= 0:
            peak = max(peak, int(status[at:].split()[1]) * 1024)
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                arguments.add(path.read_bytes())
            except OSError:
                continue
        return process.poll() is not None

    with desk.start("push", folder, REPO) as process:
        wait_for(look, 100, every=0.1)
        assert process.stdout
        assert process.stderr
        assert process.returncode == 0, process.stderr.read()
    assert desk.hub.repo(REPO).resolve("main").tree["tokenizer.model"].content.sha256 == content
    assert 10_000_000 < peak < 150_000_000
    assert not any(CANARY.encode() in argument for argument in arguments)
    for path in desk.folder.parent.rglob("*"):
        if path.is_file() and path.stat().st_size > 100_000_000:
            path.unlink()


def test_branch_that_moves_just_before_the_commit_stays_as_it_is(desk: Desk) -> None:
    folder = desk.model()
    desk.hub.add_repo(REPO, {"README.md": CARD})
    move = Meanwhile(lambda: desk.hub.commit(REPO, {"other.txt": "mine"}, title="another"))
    desk.hub.faults.add(move, "/commit/")
    message = desk.refused("push", folder, REPO)
    assert "has moved" in message
    assert desk.titles() == ["another", "initial commit"]
    desk.hub.log.clear()
    desk.pushed(folder)
    assert not desk.puts()
    assert desk.hub.files(REPO)["other.txt"] == b"mine"
