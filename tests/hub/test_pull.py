"""Sources of the Hub: planned from kilobytes, fetched as far as they are read, held to digests."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.checkpoints import file_bytes, llama_config, llama_tensors, write_checkpoint
from tests.hub.desk import Done
from tests.hub.faults import (
    Answer,
    ChangeETag,
    Cut,
    Fail,
    FlipBit,
    IgnoreRange,
    Meanwhile,
    Redirect,
    Reset,
    Stall,
    WrongContentRange,
)
from tests.hub.loopback import CANARY, LoopbackHub

CHECKPOINT, USAGE = 5, 2

ROOT = Path(__file__).parents[2]

MODULE = (sys.executable, "-m", "tests.hub.launch")

LINEAR = "{linear: {models: [a, b], weights: [0.3, 0.7]}}"


@dataclass(frozen=True)
class Desk:
    """A folder to work in, and the command line as a process that knows the Hub.

    Attributes:
        folder: where recipes and outputs are.
        hub: the Hub.
    """

    folder: Path
    hub: LoopbackHub

    def run(self, *arguments: str | Path, **environment: str) -> Done:
        return self.run_under((), *arguments, **environment)

    def run_under(
        self, wrapper: tuple[str, ...], *arguments: str | Path, **environment: str
    ) -> Done:
        done = subprocess.run(
            [*wrapper, *MODULE, *map(str, arguments)],
            env=self.hub.environment(
                PYTHONPATH=str(ROOT), HF_HUB_DOWNLOAD_TIMEOUT="2", **environment
            ),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert CANARY not in done.stdout + done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def recipe(self, result: str = LINEAR, *, a: str = "org/a", b: str = "org/b") -> Path:
        path = self.folder / "recipe.yaml"
        models = f"{{a: {a}, b: {b}}}" if "b" in result.replace("block", "") else f"{{a: {a}}}"
        path.write_text(f"models: {models}\nresult: {result}\noutput: {{path: ./out}}\n")
        return path

    def refused(self, *arguments: str | Path, **environment: str) -> str:
        done = self.run(*arguments, **environment)
        assert done.code == CHECKPOINT, done.err
        assert "Traceback" not in done.err
        assert not (self.folder / "out").exists()
        return done.err


@pytest.fixture
def desk(hub: LoopbackHub, tmp_path: Path) -> Desk:
    """Two repositories of a model in three shards, and the same as folders."""
    for seed, name in enumerate("ab"):
        folder = tmp_path / "folders" / name
        tensors = llama_tensors(3, hidden=64, vocab=512, seed=seed)
        write_checkpoint(folder, tensors, llama_config(3, hidden=64, vocab=512), shards=3)
        (folder / "tokenizer.json").write_text(f'{{"of": "{name}"}}')
        (folder / "tokenizer_config.json").write_text("{}")
        (folder / "modeling_own.py").write_text("raise SystemExit")
        (folder / "pytorch_model.bin").write_bytes(b"\x80\x04." * 100)
        hub.add_folder(f"org/{name}", folder)
    (tmp_path / "desk").mkdir()
    return Desk(tmp_path / "desk", hub)


@pytest.fixture
def want(desk: Desk) -> dict[str, bytes]:
    """What the two folders give, without the manifest."""
    folders = desk.folder.parent / "folders"
    path = desk.recipe(a=str(folders / "a"), b=str(folders / "b"))
    assert desk.run("apply", path, "-o", folders / "merged").code == 0
    return without_manifest(folders / "merged")


def without_manifest(folder: Path) -> dict[str, bytes]:
    """A result's files but for those that tell where its sources are from."""
    telling = ("tensorsurgeon.json", "recipe.yaml", "README.md", "layer_map.svg")
    return {name: data for name, data in file_bytes(folder).items() if name not in telling}


def assert_token_is_nowhere(desk: Desk) -> None:
    """In no file, and in no request to another host."""
    for path in desk.folder.parent.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path
    assert not any(exchange.token for exchange in desk.hub.log.select(host="cdn"))


def test_merge_of_two_repositories_has_the_bytes_of_the_merge_of_two_folders(
    desk: Desk, want: dict[str, bytes]
) -> None:
    path = desk.recipe()
    done = desk.run("apply", path)
    assert done.code == 0, done.err
    assert "fetching 7 files, " in done.err  # six shards and a tokenizer
    assert without_manifest(desk.folder / "out") == want
    manifest = json.loads((desk.folder / "out" / "tensorsurgeon.json").read_text())
    for name in "ab":
        source = manifest["sources"][name]
        assert source["repo"] == f"org/{name}"
        assert source["revision"] == "main"
        assert source["commit"] == desk.hub.repo(f"org/{name}").resolve("main").oid
        assert len(source["files"]) == 3
    explained = desk.run("explain", "out", "model.norm.weight")
    assert f"org/a@{manifest['sources']['a']['commit']}" in explained.out
    assert desk.run("verify", "out").code == 0
    assert not any("modeling_own" in x.target or ".bin" in x.target for x in desk.hub.log.select())
    assert_token_is_nowhere(desk)


def test_plan_reads_headers_only(desk: Desk) -> None:
    path = desk.recipe()
    done = desk.run("plan", path, "--json")
    assert done.code == 0, done.err
    planned = json.loads(done.out)
    assert planned["repos"]["a"]["name"] == "org/a"
    stored = sum(planned["fetched"].values())
    assert len(planned["fetched"]) == 7
    assert stored > 500_000
    assert desk.hub.log.sent() < 100_000
    assert not list(desk.hub.home.rglob("*.safetensors"))
    assert "org/a@" in desk.run("plan", path).out
    assert_token_is_nowhere(desk)


def test_inspect_lists_a_repository(desk: Desk) -> None:
    done = desk.run("inspect", "org/a")
    assert done.code == 0, done.err
    assert "llama, 3 layers, 30 tensors in 3 files" in done.out
    assert desk.hub.log.sent() < 60_000
    assert "there is no such model repository" in desk.refused("inspect", "org/no")


def test_source_can_be_replaced_by_a_repository(desk: Desk, want: dict[str, bytes]) -> None:
    path = desk.recipe(a="./not-here")
    assert desk.run("apply", path, "-s", "a=hf://org/a").code == 0
    assert without_manifest(desk.folder / "out") == want


def test_only_shards_that_are_read_are_fetched(desk: Desk) -> None:
    index = json.loads((desk.folder.parent / "folders/a/model.safetensors.index.json").read_text())
    path = desk.recipe(
        "{linear: {models: [a, b], weights: [1, [{match: 'lm_head*', value: 1}, 0]]}}"
    )
    done = desk.run("apply", path)
    assert done.code == 0, done.err
    fetched = {p.name for p in desk.hub.home.rglob("models--org--b/**/*.safetensors")}
    assert fetched == {index["weight_map"]["lm_head.weight"]}


def test_what_is_in_the_cache_is_not_fetched_again(desk: Desk, want: dict[str, bytes]) -> None:
    path = desk.recipe()
    assert desk.run("apply", path).code == 0
    desk.hub.log.clear()
    done = desk.run("apply", path, "--overwrite")
    assert done.code == 0
    assert "fetching" not in done.err
    assert not desk.hub.log.select(host="cdn")
    assert without_manifest(desk.folder / "out") == want


def test_offline_the_cache_is_enough_and_gives_the_same_manifest(desk: Desk) -> None:
    path = desk.recipe()
    assert desk.run("apply", path).code == 0
    desk.hub.log.clear()
    done = desk.run("apply", path, "-o", "offline", HF_HUB_OFFLINE="1")
    assert done.code == 0, done.err
    assert not desk.hub.log.select()
    online, offline = (
        json.loads((desk.folder / name / "tensorsurgeon.json").read_text())
        for name in ("out", "offline")
    )
    del online["created"], offline["created"]
    assert online == offline


def test_without_a_network_the_cache_is_enough_and_it_is_said(
    desk: Desk, want: dict[str, bytes]
) -> None:
    path = desk.recipe()
    assert desk.run("apply", path).code == 0
    done = desk.run("apply", path, "-o", "again", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.code == 0, done.err
    assert "cannot be reached: org/a@main is as the cache has it" in done.err
    assert without_manifest(desk.folder / "again") == want


def test_nothing_in_the_cache_and_no_network_is_told(desk: Desk) -> None:
    path = desk.recipe("a")
    assert "HF_HUB_OFFLINE is set" in desk.refused("plan", path, HF_HUB_OFFLINE="1")
    assert "check the network" in desk.refused("plan", path, HF_ENDPOINT="http://127.0.0.1:9")


def test_revision_is_resolved_once(desk: Desk, want: dict[str, bytes]) -> None:
    """The branch moves after the first request; all else is of the old commit."""
    hub = desk.hub
    moved = llama_tensors(3, hidden=64, vocab=512, seed=9)
    other = write_checkpoint(desk.folder / "moved", moved, llama_config(3, hidden=64, vocab=512))

    def move() -> None:
        hub.commit("org/a", {"model.safetensors": (other / "model.safetensors").read_bytes()})

    old = hub.repo("org/a").resolve("main").oid
    hub.faults.add(Meanwhile(move), target="/org/a/resolve/")
    assert desk.run("apply", desk.recipe()).code == 0
    assert hub.repo("org/a").resolve("main").oid != old
    assert without_manifest(desk.folder / "out") == want


@pytest.mark.parametrize("form", ["org/a@v1", "hf://org/a@v1", "org/a@{commit}", "hf://org/a"])
def test_revisions_and_addresses(form: str, desk: Desk, want: dict[str, bytes]) -> None:
    commit = desk.hub.repo("org/a").resolve("main").oid
    desk.hub.tag("org/a", "v1", "main")
    if "@" in form:
        desk.hub.commit("org/a", {"config.json": "{}"})
    assert desk.run("apply", desk.recipe(a=form.format(commit=commit))).code == 0
    assert without_manifest(desk.folder / "out") == want


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("org/no", "org/no@main: there is no such model repository"),
        ("org/a@no", "has no revision 'no'"),
        ("other/gated", "is gated: its owners give access on request"),
        ("other/private", "there is no such model repository"),
        ("org/pickle", "org/pickle@main: has no safetensors weights"),
        ("org/bare", "org/bare@main/config.json: is not in the repository"),
        ("hf://org--a/b..c", "is no name of a repository"),
        ("hf://a/b/c", "is no name of a repository"),
        ("'hf://org/a b'", "is no name of a repository"),
        ("hf://", "is no name of a repository"),
        ("org/a@", "org/a@: names no revision after the '@'"),
    ],
)
def test_source_that_cannot_be_had_is_told_with_what_to_do(
    name: str, said: str, desk: Desk
) -> None:
    hub = desk.hub
    hub.add_repo("other/gated", {"config.json": "{}"}, gated=True)
    hub.add_repo("other/private", {"config.json": "{}"}, private=True)
    config = json.dumps(llama_config(1))
    hub.add_repo("org/pickle", {"config.json": config, "pytorch_model.bin": b"\x80\x04."})
    hub.add_repo("org/bare", {"README.md": "nothing here"})
    message = desk.refused("plan", desk.recipe("a", a=name))
    assert said in message
    if name == "org/no":
        assert f"there is no folder {desk.folder / 'org/no'} either" in message
    assert_token_is_nowhere(desk)


def test_token_that_is_not_accepted_is_told(desk: Desk) -> None:
    message = desk.refused("plan", desk.recipe(), HF_TOKEN="hf_wrong")
    assert "hf auth login" in message
    assert "hf_wrong" not in message


@pytest.mark.parametrize(
    "shard",
    ["../../secret.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..\\x.safetensors"],
)
def test_index_that_leaves_its_repository_is_refused_without_a_request(
    shard: str, desk: Desk
) -> None:
    index = {"metadata": {}, "weight_map": {"model.norm.weight": shard}}
    desk.hub.commit("org/a", {"model.safetensors.index.json": json.dumps(index)})
    assert "a shard is the plain name of a .safetensors file" in desk.refused("plan", desk.recipe())
    assert not any("secret" in x.target or "etc" in x.target for x in desk.hub.log.select())
    assert not desk.hub.log.select(host="cdn", target="/org/a/")


PASSING = {
    "500": Fail(500),
    "503": Fail(503),
    "429": Fail(429, retry_after=1),
    "408": Fail(408),
    "reset": Reset(None),
    "cut": Cut(100),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("host", ["hub", "cdn"])
def test_failure_that_passes_is_tried_again(
    host: str, fault: object, desk: Desk, want: dict[str, bytes]
) -> None:
    desk.hub.faults.add(fault, host=host, method="GET", times=1)
    done = desk.run("apply", desk.recipe())
    if (
        done.code
    ):  # what the client itself gives up at once is an error of ours, and a second run completes
        assert done.code == CHECKPOINT, done.err
        assert "fix: " in done.err
        done = desk.run("apply", desk.recipe())
    assert done.code == 0, done.err
    assert without_manifest(desk.folder / "out") == want


LASTING = {
    "500": (Fail(500), "answers 500"),
    "429": (Fail(429, retry_after=0), "asks to wait (429)"),
    "401": (Fail(401), "does not take the address that the Hub has signed (401)"),
    "403": (Fail(403), "does not take the address that the Hub has signed (403)"),
    "416": (Fail(416), "416"),
    "another part": (WrongContentRange("bytes 1-2/3"), "sends another part than was asked for"),
    "the whole": (IgnoreRange(), "answers 200 where a part was asked for"),
    "cut": (Cut(5), "failed"),
}


@pytest.mark.parametrize(("fault", "said"), LASTING.values(), ids=LASTING)
def test_failure_of_a_header_that_lasts_is_told(fault: object, said: str, desk: Desk) -> None:
    desk.hub.faults.add(fault, host="cdn", times=None)
    message = desk.refused("plan", desk.recipe())
    assert said in message
    desk.hub.faults.clear()
    assert desk.run("plan", desk.recipe()).code == 0


def test_header_of_two_contents_is_refused(desk: Desk) -> None:
    names = {
        f"model.layers.0.{'x' * 200}{i}": row for i, row in enumerate(llama_tensors(2).values())
    }
    long = write_checkpoint(desk.folder / "long", names | llama_tensors(60), llama_config(60))
    desk.hub.add_folder("org/long", long)
    desk.hub.faults.add(ChangeETag('"other"'), host="cdn", skip=1)
    message = desk.refused("plan", desk.recipe("a", a="org/long"))
    assert "has changed while it was read" in message


def test_flipped_bit_is_found_and_the_next_run_completes(
    desk: Desk, want: dict[str, bytes]
) -> None:
    path = desk.recipe()
    assert desk.run("plan", path).code == 0
    desk.hub.faults.add(FlipBit(50_000), host="cdn")
    message = desk.refused("apply", path)
    assert "has other bytes than its repository says" in message
    assert desk.run("apply", path).code == 0
    assert without_manifest(desk.folder / "out") == want


def test_token_does_not_go_along_to_another_host(desk: Desk) -> None:
    elsewhere = desk.hub.cdn_url + "/elsewhere"
    desk.hub.faults.add(Redirect(elsewhere), host="hub", target="resolve/.*model-0000", times=None)
    desk.refused("plan", desk.recipe())
    assert desk.hub.log.select(host="cdn", target="elsewhere")
    assert_token_is_nowhere(desk)


def test_cache_that_cannot_be_written_is_told(desk: Desk) -> None:
    desk.hub.home.mkdir(exist_ok=True)
    (desk.hub.home / "hub").write_text("no folder")
    message = desk.refused("plan", desk.recipe())
    assert "HF_HOME" in message


def test_cache_that_cannot_take_a_shard_is_told_and_the_next_run_goes_on(
    desk: Desk, want: dict[str, bytes]
) -> None:
    done = desk.run_under(("prlimit", "--fsize=20000"), "apply", desk.recipe())
    assert done.code == CHECKPOINT, done.err
    assert "cannot be put into the cache: File too large" in done.err
    assert "HF_HOME" in done.err
    assert desk.run("apply", desk.recipe()).code == 0
    assert without_manifest(desk.folder / "out") == want


def shards_in_cache(desk: Desk, name: str) -> list[Path]:
    return sorted(desk.hub.home.glob(f"hub/models--org--{name}/snapshots/*/*.safetensors"))


def marks_of(desk: Desk) -> dict[Path, int]:
    """The marks of blobs that were found intact, and when each was written."""
    found = desk.hub.home.rglob(".tensorsurgeon/*")
    return {path: path.stat().st_mtime_ns for path in found if path.is_file()}


def test_cache_whose_repositories_share_their_blobs_is_read(
    desk: Desk, want: dict[str, bytes]
) -> None:
    """As the client lays it out where it has its own protocol for large files."""
    path = desk.recipe()
    assert desk.run("apply", path).code == 0
    shared = desk.hub.home / "hub" / "blobs"
    for number, link in enumerate([*shards_in_cache(desk, "a"), *shards_in_cache(desk, "b")]):
        blob = link.parent / os.readlink(link)
        other = shared / f"{number:02x}" / f"{number:064x}"
        other.parent.mkdir(parents=True)
        blob.rename(other)
        blob.symlink_to(other)
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        done = desk.run("apply", path, "--overwrite", **environment)
        assert done.code == 0, done.err
        assert without_manifest(desk.folder / "out") == want
    manifest = json.loads((desk.folder / "out" / "tensorsurgeon.json").read_text())
    stored = {f"{number:064x}" for number in range(6)}
    said = {file["sha256"] for file in manifest["sources"]["a"]["files"].values()}
    assert not said & stored


@pytest.mark.parametrize("when", ["before it was looked at", "after it was found intact"])
def test_damage_in_the_cache_is_found(when: str, desk: Desk, want: dict[str, bytes]) -> None:
    path = desk.recipe()
    assert desk.run("apply", path).code == 0
    blob = shards_in_cache(desk, "b")[1].resolve()
    data = bytearray(blob.read_bytes())
    data[-5] ^= 1
    blob.write_bytes(data)
    if when == "before it was looked at":
        for mark in marks_of(desk):
            mark.unlink()
    done = desk.run("apply", path, "--overwrite")
    assert done.code == CHECKPOINT, done.err
    assert "has other bytes than its repository says" in done.err
    assert not blob.exists()
    assert desk.run("apply", path, "--overwrite").code == 0
    assert without_manifest(desk.folder / "out") == want


def test_what_was_found_intact_is_not_digested_again(desk: Desk) -> None:
    path = desk.recipe()
    assert desk.run("apply", path).code == 0
    marks = marks_of(desk)
    assert len(marks) == 6
    assert desk.run("apply", path, "--overwrite").code == 0
    assert marks == marks_of(desk)


def test_flipped_bit_of_a_small_file_is_found(desk: Desk, want: dict[str, bytes]) -> None:
    desk.hub.faults.add(FlipBit(5), target="tokenizer.json", method="GET")
    assert "has other bytes than its repository says" in desk.refused("apply", desk.recipe())
    assert desk.run("apply", desk.recipe()).code == 0
    assert without_manifest(desk.folder / "out") == want


def interrupt(
    desk: Desk, words: Sequence[str], number: signal.Signals, *, requests: int
) -> tuple[int, str, float]:
    """Run a command, send it a signal when the second host has had so many requests.

    Returns:
        Exit code, stderr, and the seconds that it took to end.
    """
    with subprocess.Popen(
        [*MODULE, *words],
        env=desk.hub.environment(PYTHONPATH=str(ROOT)),
        cwd=desk.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 30
        while len(desk.hub.log.select(host="cdn")) < requests and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        began = time.monotonic()
        try:
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    return process.returncode, err, time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("words", ["plan", "apply"])
def test_signal_ends_a_run_whatever_the_network_does(
    words: str, number: signal.Signals, desk: Desk, want: dict[str, bytes]
) -> None:
    desk.hub.faults.add(
        Fail(429, retry_after=60) if words == "plan" else Stall(60, after_bytes=100),
        host="cdn",
        skip=0 if words == "plan" else 6,
        times=None,
    )
    expected = 3 if words == "plan" else 7
    code, err, seconds = interrupt(desk, (words, str(desk.recipe())), number, requests=expected)
    assert code == (130 if number == signal.SIGINT else 143), err
    assert seconds < 10
    assert "Traceback" not in err
    desk.hub.faults.clear()
    assert desk.run("apply", desk.recipe()).code == 0
    assert without_manifest(desk.folder / "out") == want


def test_secret_in_the_endpoint_is_not_shown(desk: Desk) -> None:
    message = desk.refused("plan", desk.recipe("a"), HF_ENDPOINT="http://user:s3cr3t@127.0.0.1:9")
    assert "http://127.0.0.1:9" in message
    assert "s3cr3t" not in message


@pytest.mark.parametrize("body", ["<html>log in to the network</html>", "[]", "{}"])
def test_answer_that_is_no_hubs_is_told(body: str, desk: Desk) -> None:
    desk.hub.faults.add(Answer(body.encode()), target="/api/models/org/a", times=None)
    assert "does not answer like a Hub" in desk.refused("plan", desk.recipe())
