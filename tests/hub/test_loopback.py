"""The loopback Hub serves the real client as the real Hub does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder

from tests.hub.content import Content
from tests.hub.loopback import LoopbackHub

CONFIG = b'{"model_type": "llama"}'
WEIGHTS = bytes(range(256)) * 4096
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "sub/deep/notes.txt": b"hello"}


def test_model_info_has_commit_and_digests(hub: LoopbackHub, client: HfApi) -> None:
    commit = hub.add_repo("org/model", FILES).resolve("main")
    info = client.model_info("org/model", files_metadata=True)
    assert (info.sha, info.private, info.gated) == (commit.oid, False, False)
    siblings = {file.rfilename: file for file in info.siblings or []}
    assert siblings.keys() == FILES.keys()
    lfs = siblings["model.safetensors"].lfs
    assert lfs is not None
    assert lfs.sha256 == Content.of(WEIGHTS).sha256
    assert siblings["config.json"].lfs is None
    assert siblings["config.json"].blob_id == Content.of(CONFIG).git_oid


def test_tree_comes_page_by_page(hub: LoopbackHub, client: HfApi) -> None:
    hub.add_repo("org/model", {f"{i:02d}.txt": str(i) for i in range(10)} | {"z/last.txt": "z"})
    hub.registry.page_size = 4
    listed = list(client.list_repo_tree("org/model"))
    assert [entry.path for entry in listed] == [*(f"{i:02d}.txt" for i in range(10)), "z"]
    assert isinstance(listed[-1], RepoFolder)
    assert len(hub.log.select(target="/tree/")) == 3
    everything = list(client.list_repo_tree("org/model", recursive=True, expand=True))
    assert [entry.path for entry in everything][-2:] == ["z", "z/last.txt"]
    assert everything[-1].last_commit is not None


def test_tree_of_a_folder_and_paths_info(hub: LoopbackHub, client: HfApi) -> None:
    hub.add_repo("org/model", FILES)
    below = client.list_repo_tree("org/model", "sub", recursive=True)
    assert [entry.path for entry in below] == ["sub/deep", "sub/deep/notes.txt"]
    paths = ["model.safetensors", "sub", "missing"]
    file, folder = client.get_paths_info("org/model", paths)
    assert isinstance(file, RepoFile)
    assert file.lfs is not None
    assert (file.size, file.lfs.size) == (len(WEIGHTS), len(WEIGHTS))
    assert isinstance(folder, RepoFolder)
    with pytest.raises(RemoteEntryNotFoundError):
        list(client.list_repo_tree("org/model", "missing"))


@pytest.mark.parametrize("resolve_cache", [False, True])
@pytest.mark.parametrize("compress", [False, True])
def test_download_from_branch_tag_and_commit(
    hub: LoopbackHub, client: HfApi, resolve_cache: bool, compress: bool
) -> None:
    hub.registry.resolve_cache, hub.registry.compress = resolve_cache, compress
    first = hub.add_repo("org/model", FILES).resolve("main")
    hub.tag("org/model", "v1")
    hub.branch("org/model", "dev/next")
    hub.commit("org/model", {"config.json": "{}"}, branch="dev/next")
    for revision, config in [("v1", CONFIG), (first.oid, CONFIG), ("dev/next", b"{}")]:
        path = Path(client.hf_hub_download("org/model", "config.json", revision=revision))
        assert path.read_bytes() == config
    path = Path(client.hf_hub_download("org/model", "model.safetensors"))
    assert path.read_bytes() == WEIGHTS
    assert path.parent.name == first.oid
    assert path.is_relative_to(hub.home)


def test_token_goes_to_the_hub_and_not_to_the_cdn(hub: LoopbackHub, client: HfApi) -> None:
    hub.add_repo("org/model", FILES, private=True)
    client.hf_hub_download("org/model", "model.safetensors")
    assert {request.token for request in hub.log.select(host="hub")} == {hub.token}
    (download,) = hub.log.select(host="cdn")
    assert download.token is None
    assert hub.token not in str(download.headers)
    assert hub.log.sent(host="cdn") == len(WEIGHTS)
    assert hub.log.sent(host="hub") < 4096


def test_snapshot_has_every_file(hub: LoopbackHub, client: HfApi) -> None:
    hub.add_repo("org/model", FILES)
    folder = Path(client.snapshot_download("org/model"))
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    hub.log.clear()
    client.snapshot_download("org/model")
    assert hub.log.sent(target="/resolve/") == 0
    assert not hub.log.select(host="cdn")


def test_snapshot_of_patterns_asks_for_nothing_else(hub: LoopbackHub, client: HfApi) -> None:
    hub.add_repo("org/model", FILES)
    client.snapshot_download("org/model", allow_patterns=["*.json"])
    assert not hub.log.select(target="safetensors|notes")


def test_client_in_a_subprocess_needs_the_environment_alone(hub: LoopbackHub) -> None:
    hub.add_repo("org/model", FILES, private=True)
    script = "import huggingface_hub as h; print(h.hf_hub_download('org/model', 'config.json'))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=hub.environment(HF_HUB_DISABLE_PROGRESS_BARS="1"),
        capture_output=True,
        text=True,
        check=True,
    )
    path = Path(done.stdout.strip())
    assert path.read_bytes() == CONFIG
    assert path.is_relative_to(hub.home)


def test_created_repo_is_as_private_as_asked(hub: LoopbackHub, client: HfApi) -> None:
    url = client.create_repo("org/new", private=True)
    assert str(url) == f"{hub.endpoint}/org/new"
    assert hub.repo("org/new").private
    assert hub.files("org/new").keys() == {".gitattributes"}
    assert client.create_repo("org/new", exist_ok=True).repo_id == "org/new"
    with pytest.raises(HfHubHTTPError, match="409"):
        client.create_repo("org/new")
    with pytest.raises(HfHubHTTPError, match="403"):
        client.create_repo("other/new")
    client.delete_repo("org/new")
    assert not client.repo_exists("org/new")


def test_uploaded_file_is_what_was_sent(hub: LoopbackHub, client: HfApi) -> None:
    first = hub.add_repo("org/model", {"config.json": "{}"}).resolve("main")
    done = client.upload_file(
        path_or_fileobj=CONFIG, path_in_repo="config.json", repo_id="org/model"
    )
    head = hub.repo("org/model").resolve("main")
    assert done.oid == head.oid
    assert head.parents == (first.oid,)
    assert hub.files("org/model") == {"config.json": CONFIG}
    commits = client.list_repo_commits("org/model")
    assert [commit.commit_id for commit in commits] == [head.oid, first.oid]


@pytest.mark.parametrize("part_size", [1 << 30, 300_000])
def test_uploaded_folder_comes_whole_and_only_once(
    hub: LoopbackHub, client: HfApi, tmp_path: Path, part_size: int
) -> None:
    hub.registry.part_size = part_size
    folder = tmp_path / "model"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Model\n")
    hub.add_repo("org/model", {})
    client.upload_folder(repo_id="org/model", folder_path=folder)
    expected = FILES | {"README.md": (folder / "README.md").read_bytes()}
    assert hub.files("org/model") == expected
    assert hub.log.received(host="cdn") == len(WEIGHTS)
    assert len(hub.log.select(host="cdn", method="PUT")) == -(-len(WEIGHTS) // part_size)
    assert not any(request.token for request in hub.log.select(host="cdn"))
    hub.log.clear()
    client.upload_folder(repo_id="org/model", folder_path=folder)
    assert not hub.log.select(host="cdn")
    assert not hub.log.select(target="/commit/")


def test_interrupted_upload_resumes_where_the_server_is(
    hub: LoopbackHub, client: HfApi, tmp_path: Path
) -> None:
    hub.add_repo("org/model", {})
    shards = {f"{name}.safetensors": os.urandom(100_000) for name in "ab"}
    operations = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=shard)
        for name, shard in shards.items()
    ]
    client.preupload_lfs_files("org/model", operations[:1])
    assert hub.files("org/model") == {}
    hub.log.clear()
    again = [CommitOperationAdd(path_in_repo=n, path_or_fileobj=s) for n, s in shards.items()]
    client.create_commit("org/model", again, commit_message="both")
    assert hub.log.received(host="cdn") == 100_000
    assert hub.files("org/model") == shards


def test_commit_on_a_moved_branch_is_refused_whole(hub: LoopbackHub, client: HfApi) -> None:
    parent = hub.add_repo("org/model", FILES).resolve("main").oid
    hub.commit("org/model", {"other.txt": "other"})
    before = hub.files("org/model")
    operations = [CommitOperationAdd(path_in_repo="new.txt", path_or_fileobj=b"new")]
    with pytest.raises(HfHubHTTPError, match="412"):
        client.create_commit("org/model", operations, commit_message="x", parent_commit=parent)
    assert hub.files("org/model") == before
    head = hub.repo("org/model").resolve("main").oid
    client.create_commit("org/model", operations, commit_message="x", parent_commit=head)
    assert hub.files("org/model") == before | {"new.txt": b"new"}


def test_commit_deletes_files_and_folders(hub: LoopbackHub, client: HfApi) -> None:
    hub.add_repo("org/model", FILES)
    deletions = [
        CommitOperationDelete(path_in_repo="config.json"),
        CommitOperationDelete(path_in_repo="sub/"),
    ]
    client.create_commit("org/model", deletions, commit_message="less")
    assert hub.files("org/model").keys() == {"model.safetensors"}
    missing = [CommitOperationDelete(path_in_repo="config.json")]
    with pytest.raises(RemoteEntryNotFoundError):
        client.create_commit("org/model", missing, commit_message="less")


def test_branches_tags_and_pull_requests(hub: LoopbackHub, client: HfApi) -> None:
    head = hub.add_repo("org/model", FILES).resolve("main").oid
    client.create_branch("org/model", branch="dev/next")
    client.create_tag("org/model", tag="v1", revision="dev/next")
    added = [CommitOperationAdd(path_in_repo="new.txt", path_or_fileobj=b"new")]
    pull = client.create_commit("org/model", added, commit_message="new", create_pr=True)
    assert (pull.pr_num, pull.pr_revision) == (1, "refs/pr/1")
    refs = client.list_repo_refs("org/model", include_pull_requests=True)
    assert {branch.name: branch.target_commit for branch in refs.branches} == {
        "dev/next": head,
        "main": head,
    }
    assert [tag.name for tag in refs.tags] == ["v1"]
    assert [request.target_commit for request in refs.pull_requests or []] == [pull.oid]
    assert client.model_info("org/model", revision="refs/pr/1").sha == pull.oid
    client.delete_branch("org/model", branch="dev/next")
    assert not client.revision_exists("org/model", "dev/next")


def test_what_is_missing_is_named_as_such(hub: LoopbackHub, client: HfApi) -> None:
    hub.add_repo("org/model", FILES)
    with pytest.raises(RepositoryNotFoundError):
        client.model_info("org/missing")
    with pytest.raises(RevisionNotFoundError):
        client.model_info("org/model", revision="missing")
    with pytest.raises(RemoteEntryNotFoundError):
        client.hf_hub_download("org/model", "missing.json")
    with pytest.raises(RevisionNotFoundError):
        client.hf_hub_download("org/model", "config.json", revision="0" * 40)


def test_private_repo_is_there_for_its_owner_alone(hub: LoopbackHub, client: HfApi) -> None:
    hub.add_repo("org/mine", FILES, private=True)
    hub.add_repo("other/hidden", FILES, private=True)
    assert client.model_info("org/mine").private
    for repo, token in [("org/mine", False), ("other/hidden", None)]:
        with pytest.raises(RepositoryNotFoundError):
            client.model_info(repo, token=token)
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as refused:
        client.model_info("org/mine", token="hf_wrong")
    assert refused.value.response.status_code == 401


def test_gated_repo_shows_its_tree_but_not_its_files(hub: LoopbackHub, client: HfApi) -> None:
    hub.add_repo("other/gated", FILES, gated=True, granted=["friend"])
    hub.add_account("hf_friend", "friend", write=False)
    assert client.model_info("other/gated").gated == "manual"
    assert client.list_repo_files("other/gated") == list(FILES)
    for token, status in [(None, 403), (False, 401)]:
        with pytest.raises(GatedRepoError) as refused:
            client.auth_check("other/gated", token=token)
        assert refused.value.response.status_code == status
    path = Path(client.hf_hub_download("other/gated", "config.json", token="hf_friend"))
    assert path.read_bytes() == CONFIG
    assert client.whoami("hf_friend")["auth"]["accessToken"]["role"] == "read"
    with pytest.raises(HfHubHTTPError, match="403"):
        client.create_branch("other/gated", branch="x", token="hf_friend")
