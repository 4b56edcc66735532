"""The manifest of a trained checkpoint continues the surgery's, and every command takes it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tensorsurgeon.checkpoint import MANIFEST_NAME, encode_manifest, read_manifest
from tensorsurgeon.errors import ManifestError
from tensorsurgeon.explain import explain
from tensorsurgeon.trainer.export import Losses, Training, write_checkpoint
from tensorsurgeon.trainer.layer_map import read_layer_map
from tests.trainer.export.models import (
    DEPTH,
    TRAINING,
    command,
    export_of,
    files_of,
    make_base,
    same,
    tensors_of,
)

DOWN = "model.layers.4.mlp.down_proj.weight"
TRAIN = {"stage": "pretrain", "steps": 7, "tokens": 896}


@pytest.fixture(scope="module")
def trained(tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of the grown model that changed nothing; nobody changes it."""
    from tests.trainer.export.models import alone

    folder = tmp_path_factory.mktemp("trained") / "out"
    export = export_of(tied)
    with alone():
        write_checkpoint(export, folder, same(export.checkpoint), losses=Losses(before=2.0))
    return folder


def test_verify_finds_it_sound_and_one_changed_byte_not(trained: Path, tmp_path: Path) -> None:
    assert "sound" in command("verify", trained)
    copied = tmp_path / "copied"
    copied.mkdir()
    for path in trained.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    data = bytearray((copied / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copied / "model.safetensors").write_bytes(data)
    assert "its bytes differ" in command("verify", copied, code=9)


def test_explain_shows_the_training_and_the_surgery_beneath(trained: Path) -> None:
    text = command("explain", trained, DOWN)
    assert "layer 4 from base[2]" in text
    assert (
        '  train, stage = "pretrain", steps = 7, tokens = 896 of\n'
        "    base: model.layers.2.mlp.down_proj.weight" in text
    )
    value = json.loads(command("explain", trained, DOWN, "--json"))
    assert value["origin"] == {
        "operator": "train",
        "parameters": TRAIN,
        "inputs": [{"source": "base", "tensor": "model.layers.2.mlp.down_proj.weight"}],
    }


def test_layer_map_is_the_surgerys_so_that_a_second_training_knows_the_seam(
    tied: Path, trained: Path
) -> None:
    before, after = (read_manifest(path / MANIFEST_NAME) for path in (tied, trained))
    assert after.layer_map == before.layer_map
    layers = read_layer_map(export_of(trained).checkpoint, DEPTH)
    assert [layer.seam for layer in layers] == [False, False, False, True, False, False]
    assert layers[3].sources == (("base", 1),)


def test_sources_are_the_surgerys_and_what_was_trained(tied: Path, trained: Path) -> None:
    before, after = (read_manifest(path / MANIFEST_NAME) for path in (tied, trained))
    assert {**after.sources, "model": None} == {**before.sources, "model": None}
    source = after.sources["model"]
    assert source["folder"] == "grown"
    assert source["files"].keys() == before.shards.keys()
    for name, entry in source["files"].items():
        said = before.shards[name]
        assert entry == {"bytes": said["bytes"], "header": said["header"]}
    # As the engine itself describes it, where it is the source of a surgery.
    recipe = trained.parent / "other.yaml"
    recipe.write_text(f"models: {{grown: {tied}}}\nresult: grown\noutput: {{path: ./copy}}\n")
    command("apply", recipe, "-q")
    assert read_manifest(trained.parent / "copy" / MANIFEST_NAME).sources["grown"] == source


def test_second_surgery_on_it_plans_and_applies(trained: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"models: {{trained: {trained}}}\n"
        "result: {depth_up_scale: {model: trained, remove: 2}}\n"
        "output: {path: ./again}\n"
    )
    assert "8 layers" in command("plan", recipe)
    command("apply", recipe, "-q")
    assert "sound" in command("verify", tmp_path / "again")
    assert "trained: model.layers.3." in command(
        "explain", tmp_path / "again", DOWN.replace("4", "5")
    )
    assert "6 layers" in command("inspect", trained)


def test_second_training_nests_over_the_first_under_a_name_of_its_own(
    trained: Path, tmp_path: Path
) -> None:
    tuned = Training(run_file="model: ./out\n", stage="sft", steps=2, tokens=64, seed=0)
    export = export_of(trained, tuned)
    write_checkpoint(export, tmp_path / "tuned", same(export.checkpoint))
    manifest = read_manifest(tmp_path / "tuned" / MANIFEST_NAME)
    assert list(manifest.sources) == ["base", "model", "model-2"]
    assert manifest.tensors[DOWN]["origin"] == {
        "operator": "train",
        "parameters": {"stage": "sft", "steps": 2, "tokens": 64},
        "inputs": [read_manifest(trained / MANIFEST_NAME).tensors[DOWN]["origin"]],
    }
    assert "sound" in command("verify", tmp_path / "tuned")
    assert (tmp_path / "tuned/layer_map.svg").read_bytes() == (
        trained / "layer_map.svg"
    ).read_bytes()


def test_model_without_a_manifest_is_a_source_by_itself(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", tied=False)
    export = export_of(base, depth=4)
    write_checkpoint(export, tmp_path / "out", same(export.checkpoint))
    manifest = read_manifest(tmp_path / "out" / MANIFEST_NAME)
    assert [entry["sources"] for entry in manifest.layer_map] == [[["model", i]] for i in range(4)]
    assert list(manifest.sources) == ["model"]
    assert manifest.sources["model"]["manifest"] is None
    assert manifest.tensors["lm_head.weight"]["origin"] == {
        "operator": "train",
        "parameters": TRAIN,
        "inputs": [{"source": "model", "tensor": "lm_head.weight"}],
    }
    assert "sound" in command("verify", tmp_path / "out")
    assert "source model is the folder base" in command(
        "explain", tmp_path / "out", "lm_head.weight"
    )
    assert not (tmp_path / "out/layer_map.svg").exists()


def test_what_was_not_trained_keeps_the_origin_it_had(tied: Path, tmp_path: Path) -> None:
    tensors = tensors_of(tied)

    def values(name: str) -> Tensor | None:
        return tensors[name].float() if ".4." in name else None

    write_checkpoint(export_of(tied), tmp_path / "out", values)
    after = read_manifest(tmp_path / "out" / MANIFEST_NAME)
    before = read_manifest(tied / MANIFEST_NAME)
    for name, entry in after.tensors.items():
        is_trained = entry["origin"].get("operator") == "train"
        assert is_trained == (".4." in name)
        if not is_trained:
            assert entry["origin"] == before.tensors[name]["origin"]
    assert explain(tmp_path / "out", DOWN).folders == {"base": "base"}


def test_same_training_gives_the_same_bytes(tied: Path, trained: Path, tmp_path: Path) -> None:
    export = export_of(tied)
    write_checkpoint(export, tmp_path / "out", same(export.checkpoint), losses=Losses(before=2.0))
    assert files_of(tmp_path / "out") == files_of(trained)


@pytest.mark.parametrize(
    "other",
    [
        {"training": replace(TRAINING, steps=8)},
        {"training": replace(TRAINING, seed=4)},
        {"training": replace(TRAINING, run_file="")},
        {"dtype": "float32"},
        {"max_shard_size": 20_000},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_training_has_another_binding(other: dict[str, object], tied: Path) -> None:
    assert export_of(tied, **other).binding != export_of(tied).binding  # type: ignore[arg-type]


def test_no_file_names_a_folder_of_this_machine(tied: Path, trained: Path) -> None:
    for path in trained.iterdir():
        data = path.read_bytes()
        for told in (str(tied.parent), str(trained.parent), "/home/somebody", "~/tokens"):
            assert told.encode() not in data, path.name
    recipe = read_manifest(trained / MANIFEST_NAME).recipe
    assert "model: ./grown\n" in recipe["text"]
    assert "# what is trained" in recipe["text"]


def test_manifest_of_other_weights_is_refused(trained: Path, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", tied=True)
    (base / MANIFEST_NAME).write_bytes((trained / MANIFEST_NAME).read_bytes())
    with pytest.raises(ManifestError) as error:
        export_of(base, depth=4)
    assert "was not made for the weights that lie beside it" in str(error.value)
    assert "\n  fix: remove it" in str(error.value)
    manifest = read_manifest(trained / MANIFEST_NAME)
    others = {"a": manifest.tensors[DOWN]}
    copied = tmp_path / "copied"
    copied.mkdir()
    for path in trained.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    (copied / MANIFEST_NAME).write_bytes(encode_manifest(replace(manifest, tensors=others)))
    with pytest.raises(ManifestError, match="was not made for the weights"):
        export_of(copied)


def test_code_and_the_names_of_its_classes_stay_behind(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", tied=True)
    (base / "modeling.py").write_text("raise SystemExit")
    config = json.loads((base / "config.json").read_text())
    coded = {**config, "auto_map": {"AutoModelForCausalLM": "modeling.X"}}
    (base / "config.json").write_text(json.dumps(coded))
    (base / "trainer_state.json").write_text("{}")
    export = export_of(base, depth=4)
    write_checkpoint(export, tmp_path / "out", same(export.checkpoint))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert not names & {"modeling.py", "trainer_state.json"}
    assert json.loads((tmp_path / "out/config.json").read_text()) == config
    assert json.loads((tmp_path / "out/tokenizer_config.json").read_text()) == {}
    tokenizer = (tmp_path / "out/tokenizer.json").read_bytes()
    assert tokenizer == (base / "tokenizer.json").read_bytes()


def test_changed_picture_or_recipe_of_the_surgery_is_not_passed_off_as_it(
    trained: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "copied"
    copied.mkdir()
    for path in trained.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    (copied / "layer_map.svg").write_text("<svg/>")
    export = export_of(copied)
    write_checkpoint(export, tmp_path / "out", same(export.checkpoint))
    assert not (tmp_path / "out/layer_map.svg").exists()
    assert (tmp_path / "out/recipe.yaml").exists()
    assert torch.equal(tensors_of(tmp_path / "out")[DOWN], tensors_of(trained)[DOWN])
