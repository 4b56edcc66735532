"""The model card and the run file that is shown: honest, escaped, without folders of a machine."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from tensorsurgeon.checkpoint import MANIFEST_NAME, encode_manifest, read_manifest
from tensorsurgeon.trainer.export import Export, Losses
from tensorsurgeon.trainer.export.card import card_text
from tensorsurgeon.trainer.export.shown import shown_run_file
from tests.trainer.export.models import TRAINING, export_of


def card(export: Export, losses: Losses | None = None, **options: Any) -> str:
    given = {"title": "out", "beside": ("layer_map.svg", "recipe.yaml"), **options}
    return card_text(export, TRAINING.run_file, losses or Losses(), **given)


def entries(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text.split("---\n")[1])


def with_sources(export: Export, sources: dict[str, Any]) -> Export:
    assert export.surgery is not None
    return replace(export, surgery=replace(export.surgery, sources=sources))


def test_card_tells_what_was_trained_and_what_came_of_it(tied: Path) -> None:
    text = card(export_of(tied), Losses(before=3.25, after=2.5, base=2.75))
    assert "`llama` model with 6 layers and 50,592 parameters in bfloat16" in text
    assert "Continued pretraining of `grown` for 7 steps on 896 tokens" in text
    for row in ("before the training | 3.2500", "after it | 2.5000", "the base model | 2.7500"):
        assert f"| {row} |" in text
    assert "No benchmark was run" in text
    assert "Layers that got another input than in their source: 3." in text
    assert entries(text) == {
        "library_name": "transformers",
        "license": "mit",
        "tags": ["tensorsurgeon", "continued-pretraining"],
    }


def test_card_without_losses_speaks_of_none(tied: Path) -> None:
    text = card(export_of(tied))
    assert "nats" not in text
    assert "None" not in text


@pytest.mark.parametrize(
    ("stage", "said", "unit"),
    [
        ("sft", "Supervised fine-tuning of `grown` for 7 steps on 896 tokens,", "nats per token:"),
        (
            "dpo",
            "Direct preference optimisation of `grown` for 7 steps on pairs of answers, "
            "896 tokens with their padding,",
            "on pairs that were held out, all the same ones, in nats per pair:",
        ),
    ],
)
def test_card_names_the_stage(stage: str, said: str, unit: str, tied: Path) -> None:
    text = card(export_of(tied, replace(TRAINING, stage=stage)), Losses(after=0.5))
    assert said in text
    assert unit in text
    assert entries(text)["tags"] == ["tensorsurgeon", stage]


def test_base_models_are_the_repositories_of_the_surgery(tied: Path) -> None:
    commit = "0" * 40
    sources = {
        "a": {"repo": "org/one", "commit": commit, "config": "", "files": {}},
        "b": {"repo": "org/two", "commit": "odd", "config": "", "files": {}},
        "c": {"repo": "org/one", "commit": commit, "config": "", "files": {}},
        "d": {"repo": "x](http://evil)", "commit": commit, "config": "", "files": {}},
        "e": {"folder": "`<script>`", "config": "", "files": {}},
    }
    text = card(with_sources(export_of(tied), sources))
    assert entries(text)["base_model"] == ["org/one", "org/two"]
    assert entries(text)["base_model_relation"] == "finetune"
    assert f"| `a` | [`org/one`](https://huggingface.co/org/one/tree/{commit}) |" in text
    assert "| `b` | `org/two` |" in text
    assert "| `d` | `x](http://evil)` |" in text
    assert r"| `e` | the folder `\x60<script>\x60` |" in text


def test_odd_manifest_makes_a_card_all_the_same(tied: Path, tmp_path: Path) -> None:
    copied = tmp_path / "grown"
    copied.mkdir()
    for path in tied.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    manifest = read_manifest(copied / MANIFEST_NAME)
    odd = replace(
        manifest,
        sources={"\x1b[31m": {"config": "", "files": {}, "folder": ["a"]}},
        layer_map=tuple({} for _ in manifest.layer_map),
    )
    (copied / MANIFEST_NAME).write_bytes(encode_manifest(odd))
    text = card(export_of(copied))
    assert text.isprintable() or {c for c in text if not c.isprintable()} == {"\n"}


def test_shown_run_file_keeps_everything_but_folders_of_this_machine() -> None:
    text = (
        "# of /home/me, which nobody reads as a path\n"
        "model: ../models/grown   # the model\n"
        "folder: runs/one\n"
        "data:\n"
        "  train:\n"
        "    - {path: '/data/tokens', weight: 2}\n"
        "    - path: ../other/tokens\n"
        "    - path: ./tokens\n"
        "  held_out: ~/held out\n"
        "evaluate: {baseline: /}\n"
        "dpo: {reference: null}\n"
    )
    assert shown_run_file(text) == (
        "# of /home/me, which nobody reads as a path\n"
        "model: ./grown   # the model\n"
        "folder: runs/one\n"
        "data:\n"
        "  train:\n"
        "    - {path: './tokens-2', weight: 2}\n"
        "    - path: ./tokens-3\n"
        "    - path: ./tokens\n"
        '  held_out: "./held out"\n'
        "evaluate: {baseline: ./model}\n"
        "dpo: {reference: null}\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "model: &m /home/me/a\nfolder: *m\n",
        "model: !!str /home/me/a\nfolder: b\n",
        "model: |-\n  /home/me/a\nfolder: b\n",
        "model: >-\n  /home/me/\n  a\nfolder: b\n",
        "data: &d {train: /home/me/a}\nmodel: x\n",
        '\ufeffmodel: "/home/me/\\u0001"\n',
    ],
)
def test_odd_spellings_of_a_path_are_shown_no_more_than_others(text: str) -> None:
    shown = shown_run_file(text)
    assert YAML(typ="safe", pure=True).load(shown) == renamed(text)


def renamed(text: str) -> Any:
    """What the text says, with the last component of paths that tell of a machine."""
    value = YAML(typ="safe", pure=True).load(text.removeprefix("\ufeff"))
    for part, key in ((value, "model"), (value, "folder"), (value.get("data", {}), "train")):
        if str(part.get(key)).startswith("/"):
            part[key] = "./" + part[key].rpartition("/")[2]
    return value


PATHS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12) | st.sampled_from(
    ["/a/b", "/c/b", "~", "~/b", "../b", "./b", "b", "a/../b", "/", "..", "./b-2"]
)


@settings(deadline=None)
@given(paths=st.lists(PATHS, min_size=4, max_size=4), flow=st.booleans())
def test_shown_run_file_names_no_place_and_keeps_folders_apart(
    paths: list[str], flow: bool
) -> None:
    first, second, third, fourth = paths
    value = {
        "model": first,
        "data": {"train": [{"path": second, "weight": 0.5}], "held_out": third},
        "output": {"path": fourth},
        "seed": 3,
    }
    out = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = flow
    yaml.dump(value, out)
    read = YAML(typ="safe", pure=True).load(out.getvalue())  # odd white space may be lost
    paths = folders_of(read)
    shown = YAML(typ="safe", pure=True).load(shown_run_file(out.getvalue()))
    after = folders_of(shown)
    assert shown == read
    for one, path in zip(paths, after, strict=True):
        assert not path.startswith(("/", "~"))
        assert ".." not in path.split("/")
        if not (one.startswith(("/", "~")) or ".." in one.split("/")):
            assert path == one
    assert [paths.index(path) for path in paths] == [after.index(path) for path in after]


def folders_of(run_file: Any) -> list[str]:
    """The folders that a run file names, which are taken out of it."""
    data = run_file["data"]
    train = data["train"][0].pop("path")
    return [run_file.pop("model"), train, data.pop("held_out"), run_file["output"].pop("path")]
