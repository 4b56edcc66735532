"""Where a tensor came from, told by the manifest alone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tensorsurgeon.errors import CheckpointError, ManifestError, MissingTensorError
from tensorsurgeon.explain import explain, explanation_json, explanation_text
from tests.verify.checkpoints import COPIES, Origins, change_manifest, digest, with_manifest

UP = "model.layers.1.up.weight"
HEAD = "lm_head.weight"


def source(name: str, tensor: str = UP) -> dict[str, str]:
    return {"source": name, "tensor": tensor}


LINEAR = {
    "operator": "linear",
    "weights": [0.25, 1 / 3],
    "inputs": [source("b"), source("c", "model.layers.7.up.weight")],
}
SLERP = {"operator": "slerp", "parameters": {"t": 0.3}, "inputs": [source("a"), LINEAR]}
MERGED = Origins(
    of={UP: SLERP, HEAD: {"zeros": True}},
    layer_map=[
        {"sources": [["a", 0], ["b", 0], ["c", 6]], "new": False, "seam": False},
        {"sources": [["a", 1], ["b", 1], ["c", 7]], "new": True, "seam": True},
    ],
    sources={name: {**COPIES.sources["base"], "folder": f"model-{name}"} for name in "abcd"},
)


def test_copied_tensor_of_a_stack_is_told_with_its_layer(folder: Path) -> None:
    copied = {UP: source("base", "model.layers.0.up.weight")}
    with_manifest(folder, replace(COPIES, of=copied))
    found = explain(folder, UP)
    data = (folder / "model.safetensors").read_bytes()[found.offset :][:16]
    assert found.sha256 == digest(data)
    assert explanation_text(found) == (
        f"{UP}\n"
        f"  BF16 [4, 2], at byte {found.offset} of model.safetensors\n"
        f"  sha256 {found.sha256}\n"
        "  layer 1 from base[0], at a seam\n"
        "  source base is the folder base\n"
        "  copy of base: model.layers.0.up.weight"
    )


def test_nested_merge_is_told_as_a_tree(folder: Path) -> None:
    with_manifest(folder, MERGED)
    text = explanation_text(explain(folder, UP)).splitlines()
    assert text[3:] == [
        "  layer 1 from a[1] + b[1] + c[7] (new, zeroed), at a seam",
        "  source a is the folder model-a",
        "  source b is the folder model-b",
        "  source c is the folder model-c",
        "  slerp, t = 0.3 of",
        f"    a: {UP}",
        "    linear of",
        f"      0.25 * b: {UP}",
        "      0.333333 * c: model.layers.7.up.weight",
    ]


def test_json_has_all_that_the_manifest_says(folder: Path) -> None:
    with_manifest(folder, MERGED)
    found = explanation_json(explain(folder, UP))
    assert json.loads(json.dumps(found)) == found
    assert found["origin"] == SLERP
    assert found["layer"] == 1
    assert found["layer_origin"] == {
        "sources": [{"source": n, "layer": k} for n, k in (("a", 1), ("b", 1), ("c", 7))],
        "new": True,
        "seam": True,
    }
    assert found["sources"] == {"a": "model-a", "b": "model-b", "c": "model-c"}


def test_tensor_outside_the_layers_has_no_layer(folder: Path) -> None:
    with_manifest(folder, MERGED)
    found = explain(folder, HEAD)
    assert explanation_text(found).splitlines()[3:] == ["  zeros"]
    assert explanation_json(found)["layer"] is None
    assert explanation_json(found)["layer_origin"] is None


def test_unknown_tensor_is_answered_with_the_nearest(folder: Path) -> None:
    with pytest.raises(MissingTensorError) as caught:
        explain(folder, "model.layers.1.upp.weight")
    assert f"did you mean '{UP}'?" in str(caught.value)
    with pytest.raises(MissingTensorError, match=r"\\x1b\[2J"):
        explain(folder, "\x1b[2J")


def test_among_many_names_the_nearest_is_found_at_once(folder: Path) -> None:
    names = [f"model.layers.{i}.mlp.experts.{j}.up.weight" for i in range(60) for j in range(1000)]
    entry = explain_entry(folder)
    change_manifest(folder, tensors=dict.fromkeys(names, entry))
    with pytest.raises(MissingTensorError, match=r"mean 'model\.layers\.7\.mlp\.experts\.3\.up"):
        explain(folder, "model.layers.7.mlp.expert.3.up.weight")


def explain_entry(folder: Path) -> dict[str, Any]:
    manifest = json.loads((folder / "tensorsurgeon.json").read_bytes())
    entry: dict[str, Any] = manifest["tensors"][UP]
    return entry


def test_folder_without_manifest_cannot_be_explained(folder: Path) -> None:
    (folder / "tensorsurgeon.json").unlink()
    with pytest.raises(ManifestError) as caught:
        explain(folder, UP)
    assert str(caught.value) == (
        f"{folder}: has no tensorsurgeon.json, which would tell where its tensors came from\n"
        "  fix: name a folder that 'tensorsurgeon apply' has made"
    )


def test_what_is_no_folder_cannot_be_explained(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such folder"):
        explain(tmp_path / "no", UP)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is not a folder"):
        explain(tmp_path / "file", UP)


@pytest.mark.parametrize(
    "origin",
    [
        {},
        {"source": "a"},
        {"source": "a", "tensor": 1},
        {"zeros": False},
        {"operator": "linear"},
        {"operator": "linear", "inputs": "ab"},
        {"operator": "linear", "weights": ["1"], "inputs": [{"zeros": True}]},
        {"operator": "linear", "weights": [1.0, 2.0], "inputs": [{"zeros": True}]},
        {"operator": "slerp", "parameters": [], "inputs": []},
        {"operator": "slerp", "parameters": {}, "inputs": [{"zeros": 1.5}]},
    ],
)
def test_origin_of_an_unknown_form_is_an_error(origin: dict[str, Any], folder: Path) -> None:
    with_manifest(folder, replace(COPIES, of={UP: origin}))
    with pytest.raises(ManifestError, match="origin"):
        explain(folder, UP)
