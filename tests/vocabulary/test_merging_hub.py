"""Models of the Hub with different tokenizers: only the tokenizers come before the start."""

import json
from pathlib import Path

import pytest

from tests.hub.conftest import hub
from tests.hub.loopback import LoopbackHub
from tests.hub.test_pull import Desk, without_manifest
from tests.vocabulary.checkpoints import Tiny, three, vocab_of
from tests.vocabulary.makers import FOREST, SEA, bpe

__all__ = ["hub"]

NAMES = ("sea", "forest", "both")

LINEAR = "{linear: {models: [sea, forest, both]}}"
SLERP = "{slerp: {models: [sea, both], t: 0.4}}"
TIES = "{ties: {base: forest, models: [sea, both], density: 0.5}}"


@pytest.fixture
def desk(hub: LoopbackHub, tmp_path: Path) -> Desk:
    """Three models on the Hub, and the same as folders; one's ids are in another order."""
    folders, models = tmp_path / "folders", three(hidden=640)
    moved = json.loads(bpe(FOREST + SEA, 340).to_str())
    ids = moved["model"]["vocab"]
    moved["model"]["vocab"] = {token: len(ids) - 1 - number for token, number in ids.items()}
    moved["added_tokens"][0]["id"] = len(ids) - 1
    from tokenizers import Tokenizer

    models["both"] = Tiny(tokenizer=Tokenizer.from_str(json.dumps(moved)), seed=3, hidden=640)
    for name, model in models.items():
        model.write(folders / name)
        hub.add_folder(f"org/{name}", folders / name)
    (tmp_path / "desk").mkdir()
    return Desk(tmp_path / "desk", hub)


def recipe(desk: Desk, result: str, *, folders: bool = False, output: str = "") -> Path:
    place = f"{desk.folder.parent}/folders" if folders else "org"
    models = ", ".join(f"{name}: {place}/{name}" for name in NAMES if name in result)
    path = desk.folder / "recipe.yaml"
    output = output or "vocabulary: {source: union}"
    path.write_text(f"models: {{{models}}}\nresult: {result}\noutput: {{path: ./out, {output}}}\n")
    return path


def wanted(desk: Desk, result: str) -> dict[str, bytes]:
    """What the folders give."""
    merged = desk.folder.parent / "merged"
    done = desk.run("apply", recipe(desk, result, folders=True), "-o", merged, "--overwrite")
    assert done.code == 0, done.err
    return without_manifest(merged)


@pytest.mark.parametrize(
    ("result", "options"),
    [
        (LINEAR, []),
        (LINEAR, ["--stream"]),
        (SLERP, ["--stream", "--threads", "2"]),
        (TIES, ["--stream"]),
    ],
    ids=["linear", "linear streamed", "slerp streamed by two", "ties streamed"],
)
def test_models_of_the_hub_give_the_bytes_of_the_folders(
    result: str, options: list[str], desk: Desk
) -> None:
    want = wanted(desk, result)
    done = desk.run("apply", recipe(desk, result), *options)
    assert done.code == 0, done.err
    assert without_manifest(desk.folder / "out") == want
    assert desk.run("verify", "out").code == 0


def test_plan_fetches_tokenizers_and_no_weights(desk: Desk) -> None:
    done = desk.run("plan", recipe(desk, LINEAR))
    assert done.code == 0, done.err
    assert "vocabulary: " in done.out
    assert not list(desk.hub.home.rglob("*.safetensors"))
    assert len(list(desk.hub.home.rglob("tokenizer.json"))) == 3
    desk.hub.log.clear()
    assert desk.run("plan", recipe(desk, LINEAR)).code == 0
    assert not desk.hub.log.select(target="/tokenizer.json")


def test_template_alone_fetches_no_vocabulary(desk: Desk) -> None:
    path = recipe(desk, LINEAR.replace(", forest, both", ", sea"), output="chat_template: chatml")
    assert desk.run("plan", path).code == 0
    assert len(list(desk.hub.home.rglob("tokenizer_config.json"))) == 1
    assert not list(desk.hub.home.rglob("tokenizer.json"))


def test_offline_the_tokenizers_in_the_cache_are_enough_and_lacking_ones_are_told(
    desk: Desk,
) -> None:
    want = wanted(desk, SLERP)
    same = recipe(desk, SLERP.replace("both", "sea"), output="dtype: float32")
    assert desk.run("plan", same).code == 0  # which needs no tokenizer
    told = desk.refused("plan", recipe(desk, SLERP.replace("both", "sea")), HF_HUB_OFFLINE="1")
    assert "org/sea@main/tokenizer.json: is not in the cache, and HF_HUB_OFFLINE is set" in told
    assert desk.run("apply", recipe(desk, SLERP)).code == 0
    done = desk.run("apply", recipe(desk, SLERP), "--overwrite", HF_HUB_OFFLINE="1")
    assert done.code == 0, done.err
    assert without_manifest(desk.folder / "out") == want


def test_tokenizer_that_is_not_what_the_repository_says_is_refused(desk: Desk) -> None:
    assert desk.run("plan", recipe(desk, SLERP)).code == 0
    (link,) = [
        path for path in desk.hub.home.rglob("tokenizer.json") if "models--org--sea" in str(path)
    ]
    link.resolve().write_bytes(link.read_bytes().replace(b"sail", b"sial"))
    told = desk.refused("plan", recipe(desk, SLERP))
    assert "org/sea@main/tokenizer.json: has other bytes than its repository says" in told
    assert desk.run("plan", recipe(desk, SLERP)).code == 0


def test_result_is_pushed_with_its_tokenizer(desk: Desk) -> None:
    path = recipe(desk, LINEAR, output="vocabulary: {source: union}, push: org/out")
    done = desk.run("apply", path)
    assert done.code == 0, done.err
    there = desk.hub.files("org/out", "main")
    assert there["tokenizer.json"] == (desk.folder / "out/tokenizer.json").read_bytes()
    assert len(vocab_of(desk.folder / "out")) > 300
